"""Sampling with vLLM: continuous batching, prefix caching, tensor parallelism. Imported only where a recipe wants it."""
