"""The output for people in a terminal: progress, tables and the watched status of a run."""
