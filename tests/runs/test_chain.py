"""The chain is a list of stages: everything else about a run's stages follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.grid import Chunk
from pipeline.runs import chain
from pipeline.runs.chain import STAGES, check_order
from pipeline.runs.plan import make_plan
from pipeline.runs.run import Run
from pipeline.runs.status import open_outline, read_status
from pipeline.runs.verify import verify_run
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.layout import Layout
from pipeline.stages.relabel import Relabel
from pipeline.stages.setup import Setup
from pipeline.volumes import open_volume
from tests.runs import affinity_run
from workflows.driver import segment


@dataclass(frozen=True)
class MarkBorders(ChainStage):
    """Labels -> 1 where the next voxel along x has another label, and how many such voxels a chunk has."""

    layout: Layout
    upstream: str

    name = "mark_borders"
    reads = (Relabel.name,)
    volumes = (OutputVolume("borders", "uint8"),)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self:
        """The stage behind the labels."""
        return cls(setup.layout, before[Relabel.name].fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """The labels."""
        return (self.upstream,)

    def read(self, chunk: Chunk) -> np.ndarray:
        """The labels of the core."""
        return self.layout.read("labels", chunk.core)

    def compute(self, chunk: Chunk, inputs: np.ndarray) -> tuple[Products, dict[str, float]]:
        """Compare neighbours along x within the core."""
        borders = np.zeros(inputs.shape, np.uint8)
        borders[..., :-1] = inputs[..., :-1] != inputs[..., 1:]
        return {"borders": borders, "count": np.array(borders.sum())}, {"borders": int(borders.sum())}


@pytest.fixture
def longer_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "STAGES", [*STAGES, MarkBorders])


@pytest.mark.usefixtures("longer_chain")
def test_a_new_stage_is_one_class_and_one_line(tmp_path: Path) -> None:
    """A stage that is listed in ``STAGES`` is run, outlined, planned, verified and resumed like the others."""
    file = affinity_run(tmp_path)
    run = segment(str(file)).run
    stage = run.stage("mark_borders")
    assert run.is_complete(stage)
    borders = open_volume(run.layout.volume_url("borders")).read(run.layout.roi)
    counts = [int(stage.load(chunk)["count"]) for chunk in stage.grids()[0]]
    assert sum(counts) == borders.sum() > 0
    assert [stage.name for stage in open_outline(run.url).stages][-1] == "mark_borders"
    assert read_status(run)[-1].counters == {"borders": sum(counts)}
    assert make_plan(run).stages[-1].bytes_uncompressed == run.layout.roi.voxels
    assert all(proof.proven for proof in verify_run(run, sample=None, seed=0))
    assert segment(str(file)).seconds == {}


@pytest.mark.usefixtures("longer_chain")
def test_a_new_stage_is_computed_again_with_what_it_reads(tmp_path: Path) -> None:
    """Another threshold changes the labels, so a stage that reads them is computed again, and no earlier one."""
    file = str(affinity_run(tmp_path))
    segment(file)
    changed = Run.open(file, ["segmentation.threshold=0.9"])
    outdated = {stage.name for stage in read_status(changed) if stage.outdated}
    assert outdated >= {"cut_merge_tree", "assign_segments", "relabel", "mark_borders"}
    assert not outdated & {"extract_supervoxels", "build_region_graph", "agglomerate", "write_supervoxels"}


def test_a_stage_is_listed_after_those_that_it_reads() -> None:
    """A chain in which a stage comes before one that it reads is refused with the remedy."""
    check_order(STAGES)
    with pytest.raises(ConfigError, match=r"mark_borders reads relabel, which STAGES does not list before it"):
        check_order([MarkBorders, *STAGES])


def test_two_stages_of_one_name_are_refused() -> None:
    """The name of a stage is its folder in the ledger, so a chain with one name twice is refused."""
    with pytest.raises(ConfigError, match="two stages are called relabel"):
        check_order([*STAGES, Relabel])


def test_no_two_stages_write_one_volume() -> None:
    """Every output volume is written by one stage, and no known head is called like one of another stage."""
    names = chain.names_of_volumes()
    assert sorted(names) == sorted(set(names))
    assert {"affinities", "membranes", "fragments", "labels", "supervoxels"} <= set(names)
