"""The volumes of the soak, and the results of undisturbed, unchunked, serial runs on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from tests.runs import results, run, write_run, write_volume

SHAPE = (24, 28, 32)


@dataclass(frozen=True)
class Flavour:
    """The input that is segmented, and the settings."""

    name: str
    source: str
    """"affinities" or "image"; for an image the identity network is run."""
    linkage: str = "mean"
    mode: str = "volume"

    def tables(self, folder: Path) -> dict[str, Any]:
        """The tables of the run file."""
        network = {"inference": {"model": "identity", "patch_shape": [12, 12, 12], "overlap": [4, 4, 4]}}
        return {
            "input": {self.source: str(folder / f"{self.source}.zarr")},
            "supervoxels": {"mode": self.mode},
            "agglomeration": {"linkage": self.linkage, "stop_score": 0.2},
            "segmentation": {"threshold": 0.5, "min_size": 20},
            **(network if self.source == "image" else {}),
        }


FLAVOURS = (
    Flavour("mean", "affinities"),
    Flavour("quantile", "affinities", linkage="quantile"),
    Flavour("sections", "affinities", mode="section"),
    Flavour("raw", "image"),
)


class References:
    """The reference results, made once; processes forked afterwards have all kernels loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        noise = ndimage.gaussian_filter(rng.normal(size=(3, *SHAPE)), (0, 1.5, 1.5, 1.5))
        values = np.clip(8 + 5 * noise / np.abs(noise).std(), 0, 15.9).astype(np.uint8) * 17  # with many ties
        write_volume(folder / "affinities.zarr", values)
        write_volume(folder / "image.zarr", values[0])
        self.results = {flavour.name: self._run(flavour) for flavour in FLAVOURS}

    def _run(self, flavour: Flavour) -> dict[str, bytes]:
        shapes = {"chunk_shape": list(SHAPE), "storage_chunk_shape": list(SHAPE)}
        return results(run(write_run(self.folder / flavour.name, **shapes, **flavour.tables(self.folder))))
