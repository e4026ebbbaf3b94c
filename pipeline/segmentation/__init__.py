"""Arrays in, arrays out: supervoxels, region graph, agglomeration, merge tree and remap."""
