"""Generators of images with exact ground truth, z, y, x throughout; pure functions of their arguments."""
