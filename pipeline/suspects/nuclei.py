"""Neurons with two nuclei, which are probably two neurons.

1. ``_wanted``      nuclei of neurons that are the host of two or more, from the table of organelles
2. ``_positions``   the supervoxel of its host that has most of each: only chunks with such a nucleus are read
3. ``_proposed``    for every two nuclei of a neuron, in the order of their ids, the join that brought them together
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipeline.evaluation.contingency import Contingency
from pipeline.grid import Chunk
from pipeline.runs.run import Run
from pipeline.shapes.organelles import hosts_of
from pipeline.stages import opened
from pipeline.stages.count_inside import TABLE, CountInside
from pipeline.stages.write_supervoxels import WriteSupervoxels
from pipeline.storage import ObjectStore
from pipeline.suspects.candidates import Candidates
from pipeline.suspects.merge_tree import joined_by, joins_of
from pipeline.suspects.tables import Share, Tables

LEAST_SHARE = 0.5
"""Share of a nucleus that lies in its host."""


@dataclass(frozen=True, eq=False)
class Nuclei:
    """Nuclei of neurons that have several, in the order of neurons, then nuclei."""

    objects: np.ndarray
    """uint64 (n,)"""
    hosts: np.ndarray
    """uint64 (n,): the neuron of each"""
    voxels: np.ndarray
    """int64 (n,): those within the neuron"""

    def chosen(self, rows: np.ndarray) -> Nuclei:
        """Some of them, by bool (n,) or by places."""
        return Nuclei(*(column[rows] for column in vars(self).values()))


def find(tables: Tables) -> Iterator[Candidates]:
    """The candidates of a run, share by share."""
    wanted = _wanted(tables.run, tables.nuclei)
    supervoxels = _positions(tables.run, tables.nuclei, wanted)
    for share in tables:
        mine = share.holds(wanted.hosts)
        yield _proposed(wanted.chosen(mine), supervoxels[mine], share, tables.run.threshold)


def _wanted(run: Run, name: str) -> Nuclei:
    found = Nuclei(*hosts_of(ObjectStore(run.layout.home(CountInside.name)).get(TABLE), name, LEAST_SHARE))
    _, place, counts = np.unique(found.hosts, return_inverse=True, return_counts=True)
    found = found.chosen(counts[place.reshape(-1)] > 1)
    return found.chosen(np.lexsort((found.objects, found.hosts)))


def _positions(run: Run, name: str, wanted: Nuclei) -> np.ndarray:
    """The supervoxel of its host with most voxels of each nucleus, of equal ones the smaller id; uint64 (n,)."""
    stage = run.stage(CountInside.name)
    assert isinstance(stage, CountInside)
    parts = (_counted(run, stage, chunk, name, wanted) for chunk in stage.grids()[0])
    table = Contingency.sum(parts)
    order = np.lexsort((table.predicted, -table.voxels, table.truth))
    return table.predicted[order][np.searchsorted(table.truth[order], wanted.objects)]


def _counted(run: Run, stage: CountInside, chunk: Chunk, name: str, wanted: Nuclei) -> Contingency:
    """The voxels that nuclei share with supervoxels of their hosts in a chunk."""
    number, volume = next((number, each) for number, each in enumerate(stage.organelles) if each.name == name)
    if not np.isin(stage.load(chunk)[f"{number}_truth"], wanted.objects).any():
        return Contingency.empty()
    box = chunk.core.intersect(volume.box)
    objects = opened.source(volume.url).read(box).astype(np.uint64)
    order = np.argsort(wanted.objects)
    place = order[np.minimum(np.searchsorted(wanted.objects[order], objects), len(order) - 1)]
    within = (wanted.objects[place] == objects) & (wanted.hosts[place] == run.layout.read(run.kind.volume, box))
    supervoxels = run.layout.read(WriteSupervoxels.volumes[0].name, box)
    return Contingency.from_labels(np.where(within, objects, np.uint64(0)), supervoxels)


def _proposed(nuclei: Nuclei, supervoxels: np.ndarray, share: Share, threshold: float) -> Candidates:
    """The joins between each nucleus and the next one of the same neuron; each join once."""
    same = np.flatnonzero(nuclei.hosts[1:] == nuclei.hosts[:-1])
    between = joined_by(share, np.stack([supervoxels[same], supervoxels[same + 1]], axis=1))
    smaller = np.minimum(nuclei.voxels[same], nuclei.voxels[same + 1])
    numbers, first = np.unique(between, return_index=True)
    made = joins_of(share, threshold, numbers[numbers >= 0])
    sizes = np.log(smaller[first[numbers >= 0]])
    return replace(made, kind="nuclei", features=np.concatenate([made.features, sizes[:, None]], axis=1))
