"""Learning: what a checkpoint holds, DeepSpeed's settings, and the two learners, `rl` and `trl`."""
