"""Configuration files as frozen, strict models; every default of a run is written here and nowhere else."""
