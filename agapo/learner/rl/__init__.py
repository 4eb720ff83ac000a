"""The RL learner: ranks under DeepSpeed, driven as one, and how a batch is laid out for them."""
