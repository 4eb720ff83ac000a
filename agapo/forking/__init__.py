"""Ray's worker processes on this machine, forked from one that has its imports done.

    driver ── starts ──▶ server.py     imports torch, transformers, DeepSpeed once, then waits
    raylet ── starts ──▶ client.py     in a Python interpreter's place: asks the server for a fork, stands for it
                         server.py ── forks ──▶ the worker, which runs what the client was told to run

Importing them takes five seconds of a core a process, and a run on a laptop has five processes on two cores. Only on a
machine without a GPU: elsewhere there are cores enough, and CUDA does not survive a fork.
"""
