"""Measuring a model: questions, greedy accuracy, what responses are like, and the needle test."""
