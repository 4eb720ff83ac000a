"""How a response is judged: one reward a file, plain functions that a recipe names."""
