"""Tables of ``run.yaml`` that turn on what a finished run can have besides: a table that is there, also an empty one,
is computed, and one that is left out is not. ``petaseg add`` adds one later.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Amount, CountOrZero, DataPath, Name, Table

Levels = Annotated[int, Field(ge=1, le=32)]
"""Coarser levels of a volume: 32 would make one voxel of the longest axis."""


class Measures(Table):
    """Voxels, places, surfaces and contacts of the objects in the result, as tables; none if this table is left out."""


class Downsample(Table):
    """Coarser levels of the volumes of a run, for viewers; none are made if this table is left out."""

    levels: Levels | None = None
    """Levels beside the finest one; default: until a level fits into one stored chunk."""
    volumes: tuple[Literal["result", "heads", "image", "supervoxels"], ...] | None = None
    """Of which volumes: result, heads, image, supervoxels; default: the first three, as far as the run has them."""


class Skeletons(Table):
    """Middle lines of neurons or objects with their radii; none are made if this table is left out."""

    smallest_voxels: CountOrZero = 1000
    """Neurons of fewer voxels get no skeleton."""
    scale: Amount = 1.5
    """A branch that ends within scale * radius + const_nm of another one is left out."""
    const_nm: Amount = 300.0
    """See ``scale``; in nanometres."""
    voxel_nm: Amount = 16.0
    """Labels are halved along each axis, as often as the shortest side of a voxel stays at most so long; 0 = never."""


class Meshes(Table):
    """Meshes of neurons or objects, for viewers; none are made if this table is left out."""

    smallest_voxels: CountOrZero = 1000
    """Neurons of fewer voxels get no mesh."""


class Organelles(Table):
    """Which objects of other volumes lie in which neuron, as a table; none if this table is left out."""

    volumes: Annotated[dict[Name, DataPath], Field(min_length=1)]
    """Volumes of objects on the same voxels, by name, such as {nuclei: runs/nuclei/objects.zarr}; 0 = no object."""
