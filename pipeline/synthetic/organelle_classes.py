"""Organelles of several kinds in EM-like tissue, with the class of every voxel."""

from __future__ import annotations

import numpy as np

from pipeline.config.base import Shape, Table
from pipeline.geometry import Vec
from pipeline.synthetic.organelles import CLASSES, Cytoplasm, add_organelles
from pipeline.synthetic.sample import Sample, sample_rng
from pipeline.synthetic.tissue import subsections, tissue_with


class OrganellesConfig(Table):
    """Numbers of the generator."""

    shape: Shape = Vec(64, 192, 192)
    """Voxels (z, y, x) of each volume."""
    resolution_nm: Shape = Vec(8, 8, 8)
    """Nanometres per voxel (z, y, x)."""


DEFAULT = OrganellesConfig()


def make_organelles_sample(index: int, *, seed: int = 0, config: OrganellesConfig = DEFAULT) -> Sample:
    """Sample ``index`` of a data set: image and classes, both uint8 (z, y, x).

    Classes are the numbers of ``CLASSES``; the image is that of ``make_tissue_sample``. ``more`` counts the voxels of
    each organelle.
    """
    own = int(sample_rng(seed, index).integers(2**62))
    drawn: list[np.ndarray] = []

    def noting(cytoplasm: Cytoplasm, rng: np.random.Generator) -> None:
        cytoplasm.classes = np.zeros(cytoplasm.cells.shape, np.uint8)
        drawn.append(cytoplasm.classes)
        add_organelles(cytoplasm, rng)

    tissue = tissue_with(noting, config.shape, seed=own, resolution_nm=config.resolution_nm)
    thin = subsections(config.resolution_nm)
    classes = np.ascontiguousarray(drawn[0][thin // 2 :: thin])
    counts = np.bincount(classes.ravel(), minlength=len(CLASSES)).tolist()
    more = {f"{name} voxels": count for name, count in zip(CLASSES[1:], counts[1:], strict=True)}
    return Sample(tissue.image, classes, {**more, "tissue_seed": str(own)})
