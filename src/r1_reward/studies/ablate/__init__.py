"""Ablation studies: a grid of RL runs from one start, resumable cell by cell, and one report."""
