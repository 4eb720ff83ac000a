"""TRL's trainers for fine-tuning and preferences, as Ray Train workers."""
