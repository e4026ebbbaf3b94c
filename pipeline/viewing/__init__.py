"""Looking at volumes: the layers of a run, served to Neuroglancer on this machine."""
