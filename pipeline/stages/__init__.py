"""The stages of a run, one file each: what it reads, computes and writes. ``pipeline.runs.chain`` lists them."""
