"""More out of few labels: train on what a network is sure of, and choose what is worth labelling next.

sure.py             the voxels of a finished run at which its network is sure
rounds.py           the settings of a self-training, and the files of its rounds
self_training.py    train, run, keep what is sure, train again: the order of the steps
candidates.py       boxes of a lattice over a run's region, each described twice: by the prediction, by the image
choice.py           which boxes to label: clusters of descriptions, and in each the most unsure box
suggestions.py      table, contact sheet and crops of the chosen boxes
"""
