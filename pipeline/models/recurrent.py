"""The parts of every recurrent network: a drive computed once, a state updated T times, and a readout.

    x = drive(image);   state = initial(x);   T times: state = step(x, state);   logits = read(state, x, image)

The four parts are separate methods, so that a rule of ``pipeline.training.rules`` can run the steps in its own way.
"""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.models.axes import as_dimension
from pipeline.models.cells import State


class RecurrentNetwork(nn.Module):
    """A recurrent network; subclasses define the four parts, and set ``steps``, ``out_channels`` and ``dimensions``."""

    steps: int
    """T."""
    out_channels: int
    dimensions: int
    """2 or 3. A network of two dimensions sees each section of a volume by itself."""
    settles: bool = True
    """Whether the state may reach a steady state, at which recurrent back-propagation differentiates."""

    def drive(self, image: Tensor) -> Tensor:
        """Image (b, i, n) -> the drive, which stays the same over all steps."""
        raise NotImplementedError

    def initial(self, x: Tensor) -> State:
        """The state before the first step; here an empty tuple, for networks whose first step makes it."""
        return ()

    def step(self, x: Tensor, state: State) -> State:
        """The state after one more step."""
        raise NotImplementedError

    def read(self, state: State, x: Tensor, image: Tensor) -> Tensor:
        """State, drive and image, as far as the readout uses them -> logits (b, out_channels, n)."""
        raise NotImplementedError

    def forward(self, image: Tensor, every_step: bool = False) -> Tensor | list[Tensor]:
        """Image (b, i, z, y, x), or (b, i, y, x) -> logits of that shape, or with ``every_step`` a list of them."""
        image, restored = as_dimension(image, self.dimensions)
        x = self.drive(image)
        state, outputs = self.initial(x), []
        for step in range(self.steps):
            state = self.step(x, state)
            if every_step or step == self.steps - 1:
                outputs.append(restored(self.read(state, x, image)))
        return outputs if every_step else outputs[-1]
