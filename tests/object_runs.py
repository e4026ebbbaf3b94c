"""Runs that make a mask or objects of two made-up heads, with true objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.volumes import open_volume
from tests.runs import write_run, write_volume

SHAPE = (24, 30, 36)
SEEDS = {"threshold": 0.4, "seed_threshold": 0.7, "seeds_within": {"contours": {"below": 0.5}}}


def smooth(seed: int, sigma: float) -> np.ndarray:
    """Smooth values of all levels, uint8 (z, y, x)."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(SHAPE), sigma)
    return np.rint(255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


FOREGROUND, CONTOURS = smooth(1, 2.0), smooth(2, 2.0)
TRUTH, _ = ndimage.label(FOREGROUND // 2 + smooth(3, 2.0) // 4 > 105)


def write(folder: Path, kind: str, **table: Any) -> Path:
    """A run file for a kind of result, of two given heads and true objects."""
    folder.mkdir(parents=True, exist_ok=True)
    heads = {
        name: write_volume(folder / f"{name}.zarr", array)
        for name, array in (("foreground", FOREGROUND), ("contours", CONTOURS))
    }
    return write_run(
        folder,
        input={"heads": heads},
        chunk_shape=[8, 10, 12],
        storage_chunk_shape=[8, 10, 12],
        segmentation={"kind": kind, "head": "foreground", **table},
        evaluation={"labels": write_volume(folder / "truth.zarr", TRUTH.astype(np.uint32))},
    )


def result_of(done: Run) -> np.ndarray:
    opened.forget()
    volume = open_volume(done.result_url)
    return volume.read(volume.spec.bounds)
