"""Evaluation: run benchmarks, score predictions, and report the results."""
