"""Shapes of neurons: meshes, skeletons and measures, from labels, block by block."""
