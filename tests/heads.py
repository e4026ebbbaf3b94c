"""A model of every kind of head, whose output is the image itself, for tests of what a run stores of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.inference.networks import NEAREST
from tests.runs import write_run, write_volume

SHAPE = (12, 20, 22)
EVERY_HEAD: list[dict[str, Any]] = [
    {"what": "membranes", "channels": 1},
    {"what": "signed_distance", "channels": 1, "activation": "tanh"},
    {"what": "instance_distance", "channels": 4, "activation": "softmax"},
    {"what": "classes", "channels": 3, "activation": "softmax"},
    {"what": "shape_descriptors", "channels": 10},
    {"what": "depth", "channels": 1, "activation": "none"},
    {"what": "flow", "channels": 2},
]


def write_model(
    folder: Path, heads: list[dict[str, Any]], offsets: list[list[int]] | None = None, **fields: Any
) -> str:
    """A card without weights, for patches of 8 x 10 x 10; affinities of nearest neighbours unless ``offsets`` says."""
    folder.mkdir(parents=True, exist_ok=True)
    places = NEAREST if offsets is None else offsets
    channels = len(places) + sum(head["channels"] for head in heads)
    card = {
        **{"name": "every-head", "architecture": "identity", "arguments": {"out_channels": channels}},
        **{"patch_shape": [8, 10, 10], "overlap": [2, 4, 4], "offsets": places, "activation": "none"},
        **{"other_channels": heads, "resolution_nm": [8.0, 8.0, 8.0], **fields},
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return str(folder)


def image_of(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Noise, and nothing in the first corner."""
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    image[:8, :10, :10] = 0
    return image


def heads_run(folder: Path, heads: list[str] | None, chunk: tuple[int, int, int] = (6, 10, 11), **tables: Any) -> Path:
    """A run file for the model of every head."""
    image = write_volume(folder / "image.zarr", image_of())
    inference = {"model": write_model(folder / "model", EVERY_HEAD), "device": "cpu"}
    if heads is not None:
        inference["heads"] = heads  # type: ignore[assignment]
    tables.setdefault("input", {"image": image})
    inference |= tables.pop("inference", {})
    shapes = {"chunk_shape": list(chunk), "storage_chunk_shape": list(chunk)}
    return write_run(folder, **shapes, inference=inference, **tables)
