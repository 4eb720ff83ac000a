"""Small stand-ins for what a user would bring."""
