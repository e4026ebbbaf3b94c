"""Recurrent cells, of which networks are built; one implementation serves two and three dimensions.

    hgru.py      HGRU                  horizontal gated recurrent unit, with softplus for implicit gradients
    fgru.py      FGRU, TopDownFGRU     feedback gated recurrent unit, within a level and between two
    mgu.py       MGU, MGU3             minimal gated units: a convolution with a memory
    convlstm.py  ConvLSTM              convolutional long short-term memory
    controls.py  GRU, LSTM, Feedforward     units in the place of an fGRU, with as many parameters
    symmetry.py  kernels that stay symmetric under any optimiser
    blocks.py    convolutions that keep the shape, norms

The length of a kernel gives the dimension: (ky, kx) or (kz, ky, kx); sides are odd and may differ.

Every cell has ``step(x, state) -> state`` (and ``initial(x)``), so every rule of ``pipeline.training.rules`` trains it.
A state is a tensor or a tuple of tensors. Shapes: b = batch, c = channels, n = voxels of any dimension.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

State = Tensor | tuple[Tensor, ...]
"""The state of a recurrence between steps."""


class Recurrence(Protocol):
    """One step in time. Drive ``x`` stays the same over all steps."""

    def initial(self, x: Tensor) -> State:
        """The state before the first step; an empty tuple if the first step makes it."""

    def step(self, x: Tensor, state: State) -> State:
        """The state after one more step."""
