"""The stages of a run, one file each, with what a stage reads, computes and writes; ``runs.chain`` lists them."""
