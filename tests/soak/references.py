"""The volumes of the soak, and the results of undisturbed, unchunked, serial runs on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """"affinities", "image" or "heads"; for an image the identity network is run."""
    linkage: str = "mean"
    mode: str = "volume"
    borders: str = "distance"
    segmentation: Mapping[str, Any] = field(default_factory=dict)
    """The table of a mask or of objects, which are made of two heads, or of a class map."""
    heads: tuple[str, ...] = ("foreground", "contours")
    """The heads that are given, if there is such a table."""
    other: str = "segmentation.threshold=0.9"
    """A change that some lives of a run make, and the next ones take back."""

    def tables(self, folder: Path) -> dict[str, Any]:
        """The tables of the run file."""
        if self.segmentation:
            heads = {name: str(folder / f"{name}.zarr") for name in self.heads}
            return {"input": {"heads": heads}, "segmentation": {"head": self.heads[0], **self.segmentation}}
        network = {"inference": {"model": "identity", "patch_shape": [12, 12, 12], "overlap": [4, 4, 4]}}
        return {
            "input": {self.source: str(folder / f"{self.source}.zarr")},
            "supervoxels": {"mode": self.mode, "borders": self.borders},
            "agglomeration": {"linkage": self.linkage, "stop_score": 0.2},
            "segmentation": {"threshold": 0.5, "min_size": 20},
            **(network if self.source == "image" else {}),
        }


OBJECTS = {
    **{"kind": "objects", "threshold": 0.4, "seed_threshold": 0.6, "seeds_within": {"contours": {"below": 0.5}}},
    **{"min_seed_size": 3, "min_size": 20},
}
OTHER_HEAD = "segmentation.head=others"
FLAVOURS = (
    Flavour("mean", "affinities"),
    Flavour("quantile", "affinities", linkage="quantile"),
    Flavour("sections", "affinities", mode="section"),
    Flavour("evidence", "affinities", borders="evidence"),
    Flavour("raw", "image"),
    Flavour("mask", "heads", segmentation={"kind": "mask", "median": [3, 3, 3], "min_size": 20, "connectivity": 26}),
    Flavour("objects", "heads", segmentation=OBJECTS),
    Flavour("classes", "heads", segmentation={"kind": "classes"}, heads=("classes", "others"), other=OTHER_HEAD),
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
        for name, channel in (("foreground", values[1]), ("contours", values[2])):
            write_volume(folder / f"{name}.zarr", channel)
        for name, channels in (("classes", values), ("others", values[::-1])):
            write_volume(folder / f"{name}.zarr", channels)
        self.results = {flavour.name: self._run(flavour) for flavour in FLAVOURS}

    def _run(self, flavour: Flavour) -> dict[str, bytes]:
        shapes = {"chunk_shape": list(SHAPE), "storage_chunk_shape": list(SHAPE)}
        return results(run(write_run(self.folder / flavour.name, **shapes, **flavour.tables(self.folder))))
