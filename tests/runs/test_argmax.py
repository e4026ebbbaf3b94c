"""Masks of the most probable class: ``head: classes:N:argmax``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.stages import opened
from pipeline.volumes import open_volume
from tests.runs import run, write_run, write_volume

CLASSES = np.random.default_rng(0).integers(0, 4, (3, 12, 14, 16)).astype(np.uint8) * 60
"""Many ties, of three classes."""


def mask(folder: Path, head: str, chunk: list[int], **more: object) -> np.ndarray:
    given = {"heads": {"classes": write_volume(folder / "classes.zarr", CLASSES)}}
    shapes = {"chunk_shape": chunk, "storage_chunk_shape": [2, 2, 2]}
    table = {"kind": "mask", "head": head, "threshold": 0.5, **more}
    finished = run(write_run(folder, input=given, segmentation=table, **shapes))
    opened.forget()
    return open_volume(finished.result_url)[...] > 0


@pytest.mark.parametrize("chunk", [[12, 14, 16], [6, 4, 8]])
def test_each_voxel_is_in_the_mask_of_its_most_probable_class(tmp_path: Path, chunk: list[int]) -> None:
    """The mask of a class is where numpy's argmax over the stored values is it; the first of equal ones wins."""
    for number in range(3):
        found = mask(tmp_path / str(number), f"classes:{number}:argmax", chunk)
        assert np.array_equal(found, CLASSES.argmax(0) == number)


@pytest.mark.parametrize("head", ["classes:3:argmax", "classes:argmax", "classes:x:argmax", "classes:1:largest"])
def test_a_channel_that_there_is_not_is_refused(tmp_path: Path, head: str) -> None:
    with pytest.raises(ConfigError, match="names no channel of head classes, which has 3"):
        mask(tmp_path, head, [12, 14, 16])
