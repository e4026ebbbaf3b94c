"""Training a network for affinities: targets, losses, augmentation, sampling, and the loop around them."""
