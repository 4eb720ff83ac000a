"""Sampling with vLLM: continuous batching, prefix caching, tensor parallelism. Imported where a recipe wants it."""
