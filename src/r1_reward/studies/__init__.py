"""Experiments: the demo, ablation studies, and trainers that only experiments need."""
