"""Speed, measured against named peers in the same run on the same work."""
