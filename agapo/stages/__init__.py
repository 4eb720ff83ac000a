"""The stages, one readable main loop a file."""
