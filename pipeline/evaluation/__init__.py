"""Scores of a segmentation against ground truth, from counts that add up over chunks; z, y, x throughout."""
