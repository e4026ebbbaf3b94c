"""A run: its chain of stages, its inputs, its directory, and what one can ask of it."""
