"""The skeletons of a run as SWC files, one for each neuron."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.shapes.measure_tables import read_table
from pipeline.shapes.shards import bytes_of
from pipeline.shapes.skeleton_files import decode, swc
from pipeline.shapes.skeletons import Skeleton
from pipeline.stages.write_skeletons import TABLE, WriteSkeletons
from pipeline.volumes.export import appearing

SWC = "swc"
"""What ``--to`` takes for it."""


def export_swc(
    run: Run,
    output: str,
    segments: Sequence[int] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write ``<id>.swc`` for each of these segments, or for all that have a skeleton; the number of files.

    The folder ``output`` appears when it is complete. Raises ``ConfigError`` if it exists or is not on this machine, if
    the run has no finished skeletons, or if a segment has none.
    """
    if "://" in output:
        raise ConfigError(f"the output {output} is not on this machine; export to a path, and copy it from there")
    stage = _finished(run)
    names = _chosen(read_table(stage.store.get(TABLE))["id"], segments)
    with appearing(output) as place:
        place.mkdir()
        for done, (name, skeleton) in enumerate(_skeletons(stage, names), 1):
            (place / f"{name}.swc").write_text(swc(name, skeleton))
            on_progress(done, len(names))
    return len(names)


def _finished(run: Run) -> WriteSkeletons:
    """The stage that has written the skeletons."""
    stages = [stage for stage in run.stages if isinstance(stage, WriteSkeletons)]
    if not stages:
        raise ConfigError(f"{run.source} has no skeletons: first `petaseg add {run.source} skeletons`")
    if not run.is_complete(stages[0]):
        raise ConfigError(
            f"{run.source} has not finished its skeletons under this configuration: first `{run.command}`"
        )
    return stages[0]


def _chosen(there: np.ndarray, segments: Sequence[int]) -> np.ndarray:
    """The segments that are wanted, uint64 (n,) ascending."""
    if not segments:
        return there
    wanted = np.unique(np.array(segments, np.uint64))
    missing = wanted[~np.isin(wanted, there)]
    if len(missing):
        raise ConfigError(
            f"--segment is {missing[0]}, which has no skeleton: {len(there):,} segments have one, those of at least "
            "skeletons.smallest_voxels voxels"
        )
    return wanted


def _skeletons(stage: WriteSkeletons, names: np.ndarray) -> Iterator[tuple[int, Skeleton]]:
    """The skeletons of these segments, shard by shard."""
    shards = stage.fragments.sharding.shard_of(names)
    for shard in np.unique(shards).tolist():
        data = stage.store.get(f"{stage.folder}/{stage.fragments.sharding.file_name(shard)}")
        for name in names[shards == shard].tolist():
            found = bytes_of(data, name)
            assert found is not None  # the table is made of the same skeletons
            yield name, decode(data[found.start : found.stop])
