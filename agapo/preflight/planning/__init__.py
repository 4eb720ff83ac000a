"""`agapo plan`: a recipe on a described cluster."""
