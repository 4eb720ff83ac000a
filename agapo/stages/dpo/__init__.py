"""The preference stage."""
