"""The state of a Neuroglancer viewer as plain values: where it looks, and its layers.

A state is stored with the run without the address of the server, which changes with each start:
``PLACE`` stands for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipeline.errors import ConfigError, VolumeError
from pipeline.formats import VIEW
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import ObjectStore
from pipeline.viewing.layers import Layer

KEY = "view.json"
LAYOUTS = {"4panel": "4panel-alt", "3d": "3d", "xy": "xy", "xz": "xz", "yz": "yz"}
"""What is seen side by side: the names that users give, and Neuroglancer's."""
OBLIQUE = [-0.26, -0.33, -0.11, 0.9]
"""From where 3D is seen at first: a quaternion, so that three sides of the volume show."""
PLACE = "petaseg-layers:"
"""Stands for the address of the server in a stored state."""


def state_of(layers: Sequence[Layer], server: str, middle: Vec | None = None, layout: str = "4panel") -> dict[str, Any]:
    """The first state: all layers, and the middle of the last visible one.

    server: the address of the layers. middle: another voxel (z, y, x) of that layer to look at. layout: a name of
    ``LAYOUTS``.

    Raises ``ConfigError`` if the voxel lies outside.
    """
    subject = [layer for layer in layers if layer.visible][-1].served
    voxel, box = subject.levels[0].resolution_nm, subject.bounds
    place = box.middle if middle is None else middle
    if not all(low <= index < high for low, index, high in zip(box.start, place, box.stop, strict=True)):
        raise ConfigError(
            f"--at is {','.join(map(str, place))}, and the layer to look at has {box}; choose a voxel in it"
        )
    return {
        "dimensions": {axis: [nm * 1e-9, "m"] for axis, nm in zip("xyz", reversed(voxel), strict=True)},
        "position": [index + 0.5 for index in reversed(place)],
        "crossSectionScale": max(box.shape) / 500,
        "projectionScale": 1.6 * _widest(box, voxel),
        "projectionOrientation": OBLIQUE,
        "layout": LAYOUTS.get(layout, layout),
        "showSlices": False,
        "layers": [_layer(layer, server) for layer in layers],
        "selectedLayer": {"layer": [layer.name for layer in layers if layer.visible][-1], "visible": False},
    }


def with_edit_layers(state: dict[str, Any]) -> dict[str, Any]:
    """The state with layers called ``merge`` and ``split`` to draw lines in, the first of them open at the side."""
    there = {layer["name"] for layer in state["layers"]}
    source = {"url": "local://annotations", "transform": {"outputDimensions": state["dimensions"]}}
    new: list[dict[str, Any]] = [
        {"type": "annotation", "name": name, "source": source, "tool": "annotateLine", "annotations": []}
        for name in ("merge", "split")
        if name not in there
    ]
    return {**state, "layers": [*state["layers"], *new], "selectedLayer": {"layer": "merge", "visible": True}}


def _widest(box: BoundingBox, voxel: tuple[float, float, float]) -> float:
    """The longest side of a box in the finest voxels."""
    return max(side * nm for side, nm in zip(box.shape, voxel, strict=True)) / min(voxel)


def _layer(layer: Layer, server: str) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "type": layer.kind,
        "name": layer.name,
        "source": f"precomputed://{server}/{layer.name}",
        "visible": layer.visible,
    }
    if layer.kind == "segmentation":
        segments = [str(label) for label in layer.selected]
        return {**plain, "selectedAlpha": 0.35, "notSelectedAlpha": 0.25, "segments": segments}
    channels = layer.served.levels[0].spec.channels
    return {**plain, "shader": layer.shader, **({"opacity": 1.0, "blend": "additive"} if channels else {})}


def store_state(store: ObjectStore, state: dict[str, Any], server: str) -> None:
    """Keep a state in the run directory."""
    text = json.dumps({**VIEW.stamp, "state": state}, indent=1).replace(server, PLACE)
    store.put(KEY, (text + "\n").encode())


def stored_state(store: ObjectStore, server: str) -> dict[str, Any] | None:
    """The state that was kept; ``None`` if there is none.

    Raises ``VolumeError`` if a newer petaseg has written it, ``CorruptError`` if it cannot be read.
    """
    data = store.get_or_none(KEY)
    if data is None:
        return None
    text = data.decode(errors="replace").replace(PLACE, server)
    return VIEW.read(
        text.encode(), f"{store.url}/{KEY}", lambda plain: dict(plain["state"]), VolumeError, damaged="delete it"
    )
