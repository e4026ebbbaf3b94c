"""The records of a run: the completed chunks of each stage, with checksums as proof."""
