"""How responses get their rewards: the verifier pool, on one host or many, and the scorer that drives it."""
