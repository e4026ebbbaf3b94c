"""Which true neuron the supervoxels of a run belong to, counted chunk by chunk."""

from __future__ import annotations

import numpy as np

from pipeline.config.run_file import Evaluation
from pipeline.errors import ConfigError
from pipeline.evaluation.contingency import Contingency
from pipeline.geometry import Vec
from pipeline.grid import ChunkGrid
from pipeline.runs.inputs import open_truth
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.stages.setup import Truth
from pipeline.stages.write_supervoxels import WriteSupervoxels
from pipeline.volumes.base import VolumeSpec


def open_labels(run: Run, labels: str, start: Vec | None = None, stop: Vec | None = None) -> Truth:
    """Labels to judge a run by, checked against its voxels; ``start`` and ``stop`` narrow them to a box."""
    layout = run.layout
    spec = VolumeSpec(layout.bounds, layout.resolution_nm, np.dtype(np.uint64), None, layout.storage_chunk_shape)
    truth = open_truth(Evaluation(labels=labels, start=start, stop=stop), spec, layout.roi, run.url)
    if truth is None:
        raise ConfigError("no labels were given; name a volume of true neurons")
    return truth


def count_truth(run: Run, truth: Truth) -> Contingency:
    """How many labelled voxels every true neuron shares with every supervoxel."""
    labels = opened.source(truth.labels or "")
    grid = ChunkGrid(run.layout.bounds, truth.box, run.layout.chunk_shape)
    name = WriteSupervoxels.volumes[0].name
    parts = (Contingency.from_labels(labels.read(chunk.core), run.layout.read(name, chunk.core)) for chunk in grid)
    return Contingency.sum(parts)
