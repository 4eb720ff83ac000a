"""Learning: DeepSpeed ranks, micro-batches, weight transport, and what a checkpoint holds."""
