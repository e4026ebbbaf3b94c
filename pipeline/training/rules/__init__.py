"""Learning rules, which define how a recurrence is run and what its backward pass computes.

    backpropagation.py   Backpropagation             through all steps (BPTT)
                         TruncatedBackpropagation    through the last few steps
                         CheckpointedBackpropagation through all steps, computing each twice instead of keeping it
    implicit.py          RecurrentBackpropagation    at the last step alone, by the Neumann series (RBP, C-RBP)
    lipschitz.py         penalties that make the last step a contraction, which C-RBP needs
    memory.py            how many bytes a rule keeps for the backward pass

Each stands beside its settings: ``Bptt``, ``Truncated``, ``Checkpointed``, ``Recurrent``.

A rule runs any ``Recurrence``, a cell or a network:

    x = network.drive(image)
    path = rule(network, x, steps)
    loss = criterion(network.read(path.state, x, image), target) + 10 * column_penalty(path)
    loss.backward()
"""

from pipeline.training.rules.backpropagation import (
    Backpropagation,
    Bptt,
    Checkpointed,
    CheckpointedBackpropagation,
    Truncated,
    TruncatedBackpropagation,
)
from pipeline.training.rules.base import Rule, Trajectory
from pipeline.training.rules.implicit import NeumannReport, Recurrent, RecurrentBackpropagation, neumann_series
from pipeline.training.rules.lipschitz import column_penalty, frobenius_penalty, spectral_penalty
from pipeline.training.rules.memory import SavedBytes

__all__ = [
    "Backpropagation",
    "Bptt",
    "Checkpointed",
    "CheckpointedBackpropagation",
    "NeumannReport",
    "Recurrent",
    "RecurrentBackpropagation",
    "Rule",
    "SavedBytes",
    "Trajectory",
    "Truncated",
    "TruncatedBackpropagation",
    "column_penalty",
    "frobenius_penalty",
    "neumann_series",
    "spectral_penalty",
]
