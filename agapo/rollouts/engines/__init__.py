"""What turns prompts into responses: one folder an engine."""
