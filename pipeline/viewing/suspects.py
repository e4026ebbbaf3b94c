"""Suspects in the viewer: a layer of points, and a state that looks at one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.suspects.listing import Suspect

COLOURS = {"merger": "#ff5c5c", "split": "#5cc8ff", "end": "#b08cff", "crossing": "#ffb347", "nuclei": "#ff8ad8"}
LAYERS = {"merger": "mergers", "split": "splits", "end": "ends", "crossing": "crossings", "nuclei": "two nuclei"}
NEAR = 0.4
"""Voxels a pixel of the screen, where one place is looked at."""


def layers_of_suspects(suspects: Sequence[Suspect], voxel_nm: tuple[float, float, float]) -> list[dict[str, Any]]:
    """A layer of points for each kind, as plain values of a state; voxel_nm: the size of the run's voxels, z y x."""
    found = {kind: [each for each in suspects if each.kind == kind] for kind in COLOURS}
    return [_layer(kind, rows, voxel_nm) for kind, rows in found.items() if rows]


def _layer(kind: str, suspects: Sequence[Suspect], voxel_nm: tuple[float, float, float]) -> dict[str, Any]:
    """Points whose text is in their description: properties of annotations are written wrongly by some releases."""
    axes = {axis: [nm * 1e-9, "m"] for axis, nm in zip("xyz", reversed(voxel_nm), strict=True)}
    return {
        "type": "annotation",
        "name": f"suspects: {LAYERS[kind]}",
        "source": {"url": "local://annotations", "transform": {"outputDimensions": axes}},
        "annotationColor": COLOURS[kind],
        "annotations": [_point(each) for each in suspects],
    }


def _point(suspect: Suspect) -> dict[str, Any]:
    text = f"{suspect.rank}: {suspect.kind}, {suspect.probability:.0%}, {suspect.minutes:.2f} minutes"
    point = [index + 0.5 for index in reversed(suspect.place)]
    return {"type": "point", "id": str(suspect.rank), "point": point, "description": text}


def looking_at(state: dict[str, Any]) -> dict[str, Any]:
    """The state so near that the contact fills the view."""
    return {**state, "crossSectionScale": NEAR}
