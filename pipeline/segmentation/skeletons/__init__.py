"""The middle lines of neurons: arrays in, arrays out."""
