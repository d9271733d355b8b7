"""Load checkpoints, merge adapters, set pixel budgets, add scalar heads, and build the tiny model."""
