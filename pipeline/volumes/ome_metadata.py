"""OME-Zarr multiscales metadata (versions 0.4 and 0.5) to and from resolution and offset.

    nanometres of array index i along an axis = (translation + i * scale) * unit

A level may have its own scale and translation, and the multiscale image others that apply after those.
Reference: OME-NGFF specification 0.4 and 0.5, section "multiscales".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import VolumeError
from pipeline.geometry import Vec
from pipeline.volumes.axes import Axes
from pipeline.volumes.base import VolumeSpec
from pipeline.volumes.placement import UNITS_NM, Resolution, tidy, whole_voxels


@dataclass(frozen=True)
class Level:
    """One array of a multiscale image; lists have one entry per axis."""

    path: str
    scale: list[float]
    translation: list[float]


@dataclass(frozen=True)
class Multiscale:
    """A multiscale image; level 0 is the finest."""

    names: list[str]
    units: list[str | None]
    levels: list[Level]

    def level(self, url: str, mip: int) -> Level:
        """The level of a mip; ``VolumeError`` if there is none."""
        if mip >= len(self.levels):
            raise VolumeError(f"{url} has no mip {mip}; it has {len(self.levels)} levels, 0 to {len(self.levels) - 1}")
        return self.levels[mip]

    def placement(self, url: str, level: Level, axes: Axes) -> tuple[Resolution | None, Vec]:
        """Resolution in nm and offset in voxels; no resolution if an axis has no unit."""
        units = axes.spatial(self.units)
        scale, translation = axes.spatial(level.scale), axes.spatial(level.translation)
        factors = [_nanometres(url, unit) for unit in units if unit is not None]
        if len(factors) < 3:
            return None, whole_voxels(url, translation, scale)
        resolution = tidy([s * f for s, f in zip(scale, factors, strict=True)])
        return resolution, whole_voxels(url, translation, scale)


def parse_multiscale(url: str, attributes: Mapping[str, Any]) -> Multiscale | None:
    """The first multiscale image of a group's attributes; ``None`` if there is none."""
    images = attributes.get("ome", attributes).get("multiscales")
    if not images:
        return None
    image = images[0]
    try:
        axes = image["axes"]
        names = [axis["name"] if isinstance(axis, dict) else axis for axis in axes]
        units = [axis.get("unit") if isinstance(axis, dict) else None for axis in axes]
        outer = image.get("coordinateTransformations", [])
        return Multiscale(names, units, [_level(dataset, outer, len(names)) for dataset in image["datasets"]])
    except (KeyError, TypeError, IndexError) as error:
        raise VolumeError(
            f"{url} has multiscales metadata that is not OME-Zarr 0.4 or 0.5 ({type(error).__name__}: {error}); "
            "open one of its arrays by its path and add #resolution=z,y,x"
        ) from error


def multiscale_attributes(name: str, spec: VolumeSpec, path: str) -> dict[str, Any]:
    """Group attributes (OME-Zarr 0.5) of a volume with one level: nanometres, and the offset as a translation."""
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    scale = list(spec.resolution_nm)
    translation = [v * r for v, r in zip(spec.bounds.start, spec.resolution_nm, strict=True)]
    if spec.channels is not None:
        axes.insert(0, {"name": "c", "type": "channel"})
        scale.insert(0, 1.0)
        translation.insert(0, 0.0)
    transforms = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
    dataset = {"path": path, "coordinateTransformations": transforms}
    return {"ome": {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": [dataset]}]}}


def _level(dataset: Mapping[str, Any], outer: Sequence[Mapping[str, Any]], ndim: int) -> Level:
    scale, translation = _transform(dataset.get("coordinateTransformations", []), ndim)
    outer_scale, outer_translation = _transform(outer, ndim)
    return Level(
        str(dataset["path"]).strip("/"),
        [a * b for a, b in zip(scale, outer_scale, strict=True)],
        [a * b + c for a, b, c in zip(translation, outer_scale, outer_translation, strict=True)],
    )


def _transform(steps: Sequence[Mapping[str, Any]], ndim: int) -> tuple[list[float], list[float]]:
    scale, translation = [1.0] * ndim, [0.0] * ndim
    for step in steps:
        if step["type"] == "scale":
            scale = [float(v) for v in step["scale"]]
        elif step["type"] == "translation":
            translation = [float(v) for v in step["translation"]]
    return scale, translation


def _nanometres(url: str, unit: str) -> float:
    if unit.lower() not in UNITS_NM:
        raise VolumeError(
            f"{url} measures space in {unit!r}; known units are {', '.join(UNITS_NM)}: add #resolution=z,y,x"
        )
    return UNITS_NM[unit.lower()]
