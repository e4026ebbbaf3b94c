"""Objects out of one head of a network: connected components and seeded watershed, exact in any chunking.

1. ``landscape``    the stored head of a chunk -> basins by steepest ascent, cut at the faces of the chunk
2. ``basin_graph``  the best pass between any two basins that touch, and the voxels of each basin by level
3. ``object_graph`` the same under given thresholds
4. ``union``        which basins are one object, up and down the tree of chunks

Steps 1 and 2 know no threshold, so other thresholds, seeds and sizes read no voxel again but for the labels.
"""
