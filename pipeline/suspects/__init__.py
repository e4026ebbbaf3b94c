"""Where a segmentation is probably wrong: candidates from stored tables, each with a probability and its worth."""
