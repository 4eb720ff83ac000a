"""Sampling: the engine protocol, the engines, the actors that hold them and the pool that supervises these."""
