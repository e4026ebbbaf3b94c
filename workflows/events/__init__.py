"""Listeners to the events of a run: the log for programs, the log for people, and metrics."""
