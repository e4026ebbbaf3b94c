"""Experiments with the networks and learning rules: each one command, a table, a plot and a page in docs/experiments.

    base.py   what an experiment is: Experiment, Scale, Trials, Report
    loop.py   a small training loop in memory, for any recurrence and any learning rule
    pathfinder_task.py   the images, networks and trainings that steps, crbp_pathfinder and stability share

Every other module is one experiment and holds it as ``EXPERIMENT``.
"""

EXPERIMENTS: dict[str, tuple[str, str]] = {
    "steps": ("pipeline.experiments.steps", "How many steps of recurrence are worth their time?"),
    "crbp-pathfinder": (
        "pipeline.experiments.crbp_pathfinder",
        "Does C-RBP learn what BPTT learns, in constant memory?",
    ),
    "stability": ("pipeline.experiments.stability", "What does the state do beyond the trained steps?"),
}
"""Name -> module and what is asked, in one line; the module is loaded when its experiment is run."""
