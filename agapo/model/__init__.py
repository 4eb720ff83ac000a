"""Models: loading, export, the tokenizer of the tiny model, weight buffers and token log-probabilities."""
