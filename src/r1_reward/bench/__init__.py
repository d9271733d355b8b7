"""Evaluation: judging pairs and the numbers about it."""
