"""`agapo ablate`: does a part of the algorithm do anything? Runs of variants, and what they came to."""
