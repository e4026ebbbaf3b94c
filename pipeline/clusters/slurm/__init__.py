"""SLURM: a driver job, a job for each worker, and the commands that start and end them."""
