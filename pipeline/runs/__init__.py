"""A run: its chain of stages, its inputs, its directory, and the commands on it."""
