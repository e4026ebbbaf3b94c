"""The entry points: only here does Luigi order the stages, and does the command line print for people."""
