"""The entry points: Luigi orders the stages here, and the command line talks to people. Nothing else does either."""
