"""The SFT stage."""
