"""What is measured with the package: the demo, grids of training runs, and what only experiments need."""
