"""How final answers are found and read, for the rewards that compare them."""
