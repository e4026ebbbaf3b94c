"""Settings of the synthetic connectomics challenge; ``connectomics_challenge.py`` says how the paper is read."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.config.base import Amount, Count, CountOrZero, Positive, Share, Table
from pipeline.synthetic.snakes import Normal, Walk


class SnakeKind(Table):
    """Snakes of one size."""

    number: CountOrZero
    """How many are placed, if there is room."""
    circles: Normal
    """Circles of a snake, rounded."""
    radius: Normal
    """Radius of a circle before it is scaled."""


SMALL = Normal(mean=10, sd=15, low=2, high=40)
LONG = SnakeKind(number=6, circles=Normal(mean=8, sd=2, low=4, high=12), radius=Normal(mean=30, sd=6, low=18, high=42))
MODERATE = SnakeKind(
    number=6, circles=Normal(mean=4, sd=2, low=1, high=8), radius=Normal(mean=40, sd=8, low=24, high=56)
)
SHORT = SnakeKind(number=6, circles=Normal(mean=3, sd=2, low=1, high=7), radius=SMALL)


class ChallengeConfig(Table):
    """Numbers of the generator; the defaults are the paper's, or the reading that is explained above."""

    size: Annotated[int, Field(ge=32)] = 500
    """Side of the picture in pixels."""
    crop: Count | None = None
    """Side of the middle part that is returned; the authors' readers cut 320 out of 350."""
    nodes: Count = 15
    """Nodes along a side of the grid."""
    jitter: Amount = 50.0
    """Each node is moved within a disc of this radius."""
    size_scale: Positive = 0.5
    """All radii are multiplied by this."""
    least_radius: Positive = 2.0
    """Smallest radius after scaling."""
    cell_radius: Normal = SMALL
    """Radius of single circles before it is scaled."""
    circle_draws: Count = 8
    """Radii that are drawn at a node before it stays without a cell."""
    snakes: tuple[SnakeKind, ...] = (LONG, MODERATE, SHORT)
    """Kinds of snakes, in the order in which they are placed."""
    walk: Walk = Walk()
    """How snakes go on."""
    gap: Positive = 4.0
    """Pixels between the skeletons of two cells, at least."""
    membranes: bool = True
    """Draw membranes; without them nothing is labelled."""
    organelle_share: Share = 0.5
    """Part of the cells that hold organelles."""
    organelle_area: Share = 0.3
    """Organelles are added until their skeletons fill this part of a cell, if there is room."""
    organelle_circles: Normal = Normal(mean=3, sd=1, low=1, high=5)
    """Circles of an organelle, rounded."""
    organelle_radius: Normal = SMALL
    """Radius of a circle of an organelle before it is scaled."""
    organelle_gap: Positive = 4.0
    """Pixels between an organelle's skeleton and the next one, or the membrane, at least."""
    organelle_tries: Count = 20
    """Organelles that are tried in a cell."""
    thickness: Annotated[float, Field(ge=1)] = 3.0
    """Thickness of all lines in pixels."""
    bumps: Count = 20
    """Gaussian bumps of a template."""
    bump_width: Positive = 20.0
    """Standard deviation of a bump in pixels."""
    warp: Amount = 120.0
    """Displacement in pixels is this times the gradient of a template (which is per pixel)."""
    least_contrast: Share = 0.7
    """Contrast where its template is 0; it is 1 where the template is 1."""
    blur: Amount = 1.0
    """Standard deviation of the blur in pixels where its template is 0; none where the template is 1."""
    noise: Amount = 0.5
    """Standard deviation of the noise; lines have brightness 1 on 0."""

    @model_validator(mode="after")
    def _crop_fits(self) -> ChallengeConfig:
        if self.crop is not None and self.crop > self.size:
            raise ValueError(f"crop is {self.crop}; it must fit into the picture of {self.size} pixels")
        return self


DEFAULT = ChallengeConfig()
