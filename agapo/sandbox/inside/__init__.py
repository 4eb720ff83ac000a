"""What runs inside the containers: the candidate's side, the judge's side, and the wire between them.

This folder is mounted into a container that has nothing else of agapo, so it imports the standard library alone.
"""
