"""Experiments with the networks and learning rules: each is one command with a table, a plot and a page in
docs/experiments.

    base.py   the parts of an experiment: Experiment, Scale, Trials, Report
    loop.py   a small training loop in memory, for any recurrence and any learning rule
    pathfinder_task.py   the images, networks and trainings that steps, crbp_pathfinder and stability share
    challenge.py   pictures of the synthetic challenge, a small training loop for any 2D network, average precision
    equal_time.py   how long an update takes
    fib25.py  real tissue: trainings of ``petaseg train`` and the whole pipeline behind them
    plain.py  real tissue: trainings of the plain U-Net with one thing changed, which ablation and recurrence share
    whole_volume.py   segmentation and scores of one volume in memory

Every other module is one experiment and holds it as ``EXPERIMENT``.
"""

EXPERIMENTS: dict[str, tuple[str, str]] = {
    "steps": ("pipeline.experiments.steps", "How many steps of recurrence are worth their time?"),
    "crbp-pathfinder": (
        "pipeline.experiments.crbp_pathfinder",
        "Does C-RBP learn what BPTT learns, in constant memory?",
    ),
    "pathfinder-reach": (
        "pipeline.experiments.pathfinder_reach",
        "Pathfinder: curves longer than in training, small kernels over many steps",
    ),
    "stability": ("pipeline.experiments.stability", "What does the state do beyond the trained steps?"),
    "tilt-illusion": (
        "pipeline.experiments.tilt_illusion",
        "The tilt illusion of networks that were trained on contours",
    ),
    "label-efficiency": ("pipeline.experiments.label_efficiency", "γ-Net and U-Net on 1, 10 and 100 % of the labels"),
    "rignet-iterations": ("pipeline.experiments.rignet_iterations", "Iterations of RIGNet against score"),
    "self-training": ("pipeline.experiments.self_training", "Does self-training help at 1 and 10 % of the labels?"),
    "suggested-boxes": (
        "pipeline.experiments.suggested_boxes",
        "Are suggested boxes better than random ones?",
    ),
    "gamma-units": (
        "pipeline.experiments.gamma_units",
        "γ-Net: steps of recurrence, and GRU, LSTM and feedforward units in its place",
    ),
    "rignet-gates": ("pipeline.experiments.rignet_gates", "RIGNet's other gates and a network-wide recurrence"),
    "bc-bcd": ("pipeline.experiments.bc_bcd", "BC against BCD decoding of mitochondria that touch"),
    "ablation": ("pipeline.experiments.ablation", "What makes neurons right: one thing changed at a time"),
    "recurrence": (
        "pipeline.experiments.recurrence",
        "The plain U-Net and its recurrent sibling at equal time",
    ),
    "comparison": ("pipeline.experiments.comparison", "Three 3D networks on real tissue at equal time"),
}
"""Name -> module and question in one line; the module is loaded when its experiment is run."""
