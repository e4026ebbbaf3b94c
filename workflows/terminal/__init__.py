"""What people see in a terminal: progress, tables and the watched status of a run."""
