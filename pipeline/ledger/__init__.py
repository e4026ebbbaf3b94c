"""The records of a run: which chunks of each stage are done, and the proof."""
