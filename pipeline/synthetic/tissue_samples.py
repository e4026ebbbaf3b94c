"""Made-up tissue as a data set: many volumes, each of a seed of its own."""

from __future__ import annotations

from pipeline.config.base import Shape, Table
from pipeline.geometry import Vec
from pipeline.synthetic.sample import Sample, sample_rng
from pipeline.synthetic.tissue import make_tissue


class TissueConfig(Table):
    """Numbers of the generator."""

    shape: Shape = Vec(64, 192, 192)
    """Voxels (z, y, x) of each volume."""
    resolution_nm: Shape = Vec(8, 8, 8)
    """Nanometres per voxel (z, y, x)."""


DEFAULT = TissueConfig()


def make_tissue_sample(index: int, *, seed: int = 0, config: TissueConfig = DEFAULT) -> Sample:
    """Sample ``index`` of a data set: image uint8 and cells uint32, both (z, y, x); ``more`` counts ``cells``."""
    own = int(sample_rng(seed, index).integers(2**62))
    tissue = make_tissue(config.shape, seed=own, resolution_nm=config.resolution_nm)
    return Sample(tissue.image, tissue.labels, {"cells": int(tissue.labels.max()), "tissue_seed": str(own)})
