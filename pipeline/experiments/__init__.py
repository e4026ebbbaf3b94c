"""Experiments with the networks and learning rules: each one command, a table, a plot and a page in docs/experiments.

    base.py   what an experiment is: Experiment, Scale, Trials, Report
    loop.py   a small training loop in memory, for any recurrence and any learning rule

Every other module is one experiment and holds it as ``EXPERIMENT``.
"""

EXPERIMENTS: dict[str, tuple[str, str]] = {}
"""Name -> module and what is asked, in one line; the module is loaded when its experiment is run."""
