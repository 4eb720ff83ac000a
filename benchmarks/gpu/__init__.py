"""What a GPU shows of this toolkit in ten minutes: correctness, memory and speed (`python -m benchmarks.gpu`)."""
