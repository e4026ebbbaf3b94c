"""Made-up tissue as a data set: many volumes, each of a seed of its own."""

from __future__ import annotations

import numpy as np

from pipeline.config.base import Shape, Table
from pipeline.geometry import Vec
from pipeline.synthetic.faults import Faults, add_faults
from pipeline.synthetic.sample import Sample, sample_rng
from pipeline.synthetic.tissue import make_tissue


class TissueConfig(Table):
    """Numbers of the generator."""

    shape: Shape = Vec(64, 192, 192)
    """Voxels (z, y, x) of each volume."""
    resolution_nm: Shape = Vec(8, 8, 8)
    """Nanometres per voxel (z, y, x)."""
    faults: Faults = Faults()
    """Faults of sections."""


DEFAULT = TissueConfig()


def make_tissue_sample(index: int, *, seed: int = 0, config: TissueConfig = DEFAULT) -> Sample:
    """Sample ``index`` of a data set: image uint8 and cells uint32, both (z, y, x).

    ``more`` counts ``cells``, and lists the sections that have ``faults``, if any can have.
    """
    own = int(sample_rng(seed, index).integers(2**62))
    faults, edge = config.faults, config.faults.margin
    shape = config.shape + Vec(0, 2, 2) * edge
    tissue = make_tissue(shape, seed=own, resolution_nm=config.resolution_nm)
    facts = {"cells": int(tissue.labels.max()), "tissue_seed": str(own)}
    if faults == Faults():
        return Sample(tissue.image, tissue.labels, facts)
    image, labels, found = add_faults(tissue.image, tissue.labels, faults, np.random.default_rng([own, 1]))
    return Sample(image, labels, {**facts, "cells": len(np.unique(labels[labels > 0])), "faults": found})
