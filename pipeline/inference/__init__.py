"""From an image to affinities: patches of one lattice are blended, with the same bytes for any chunking."""
