"""Sampling with a transformers model: the engine that runs anywhere."""
