"""`agapo eval`."""
