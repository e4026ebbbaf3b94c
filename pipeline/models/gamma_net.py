"""One step of every gamma-Net: up a hierarchy of levels, and down again.

After Linsley, Kim, Ashok and Serre 2020 (ICLR, "Recurrent neural circuits for contour detection").

    up      H(l) = fGRU(X = B(l), H = H(l)),    B(0) = X,  B(l+1) = ascend(H(l))
    down    H(l) = fGRU(X = H(l), H = descend(H(l+1))) + H(l)

``gamma_net_2d.py``, ``gamma_net_3d.py`` and ``gamma_net_vgg.py`` define the layers between the levels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.geometry import Triple
from pipeline.models.cells import State
from pipeline.models.cells.fgru import Variant, variant_of
from pipeline.models.recurrent import RecurrentNetwork

NETWORK_NORMS = ("channel", "instance", "rms")
"""Norms under which a patch's result does not depend on the other patches of its batch."""

SENT_UP = ("none", "first", "all")


class GammaNet(RecurrentNetwork):
    """One step of a gamma-Net; subclasses set ``horizontal`` and ``top_down``, and define the other four methods.

    The state is (H of each level, memories on the way up, memories on the way down), lowest level first.
    """

    horizontal: nn.ModuleList
    """The fGRU of each level, lowest first."""
    top_down: nn.ModuleList
    """The fGRU between each level and the one above."""
    skip: str = "none"
    """Which levels send H + X upward, not H alone: the authors' code does so for all."""

    def ascend(self, level: int, h: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The output of a level -> the drive of the next level, and the memory between them."""
        raise NotImplementedError

    def descend(self, level: int, h: Tensor, memory: Tensor | None, lower: Tensor) -> tuple[Tensor, Tensor | None]:
        """State of level + 1 -> the input to ``level`` below, whose state is ``lower``, and the memory between them."""
        raise NotImplementedError

    def step(self, x: Tensor, state: State) -> State:
        """One step of the whole hierarchy."""
        levels = len(self.horizontal)
        parts: list[Tensor | None] = [*state, *[None] * (3 * levels - 2 - len(state))]
        h, below, above = parts[:levels], parts[levels : 2 * levels - 1], parts[2 * levels - 1 :]
        self._bottom_up(x, h, below)
        self._top_down(h, above)
        return tuple(part for part in (*h, *below, *above) if part is not None)

    def _bottom_up(self, x: Tensor, h: list[Tensor | None], memory: list[Tensor | None]) -> None:
        drive = x
        for level, cell in enumerate(self.horizontal):
            state = h[level]
            h[level] = new = cell(drive, cell.initial(drive) if state is None else state)  # type: ignore[operator]
            if level < len(self.top_down):
                shown = self.visible(new)
                sent = shown + drive if self.skip == "all" or (self.skip == "first" and level == 0) else shown
                drive, memory[level] = self.ascend(level, sent, memory[level])

    def _top_down(self, h: list[Tensor | None], memory: list[Tensor | None]) -> None:
        for level in reversed(range(len(self.top_down))):
            lower, higher = h[level], h[level + 1]
            seen = self.visible(higher)  # type: ignore[arg-type]
            top, memory[level] = self.descend(level, seen, memory[level], lower)  # type: ignore[arg-type]
            h[level] = self.together(lower, self.between(level, lower, top))  # type: ignore[arg-type]

    def visible(self, state: Tensor) -> Tensor:
        """H, what other levels and the readout see of a level's state: all of it, unless its units remember more."""
        return state

    def between(self, level: int, lower: Tensor, top: Tensor) -> Tensor:
        """The state of a level, and the input from above -> what the unit between the levels makes of them."""
        return self.top_down[level](lower, top)  # type: ignore[no-any-return]

    def together(self, lower: Tensor, new: Tensor) -> Tensor:
        """The state of a level, and what its unit makes of the input from above -> its next state."""
        return new + lower


def reflected(horizontal: Sequence[int], variant: str | Variant) -> list[int]:
    """Pixels beyond the border that the fGRU of each level reads by reflection; none if it pads with zeros."""
    return [side // 2 if variant_of(variant).padding == "reflect" else 0 for side in horizontal]


def least_section(reach: Sequence[int], scales: Sequence[int]) -> Triple:
    """The least patch of a 2D network whose levels, smaller by ``scales``, reflect ``reach`` pixels at the border."""
    least = max((r + 1) * scale for r, scale in zip(reach, scales, strict=True))
    return 1, least, least
