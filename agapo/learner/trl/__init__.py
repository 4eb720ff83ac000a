"""TRL's trainers for fine-tuning and preferences, on Ray actors."""
