"""What several stages need to run: how a run begins, what it starts, how it is interrupted and how it ends."""
