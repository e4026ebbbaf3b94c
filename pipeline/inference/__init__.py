"""From an image to affinities: a patch lattice of the whole dataset, blended, with the same bytes for any chunk."""
