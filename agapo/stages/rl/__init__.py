"""The RL stage."""
