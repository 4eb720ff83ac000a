"""Sampling and scoring: engines, rollout actors, their supervisor, and the verifier pool."""
