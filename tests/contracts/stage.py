"""The promises of every stage. Subclass ``StageContract`` and say how to make a stage whose inputs are stored."""

from __future__ import annotations

import base64
import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.grid import Chunk
from pipeline.stages.base import Products, Stage, checksum_of

FINGERPRINT = """
import base64, pickle, sys
sys.stdout.write(pickle.loads(base64.b64decode(sys.stdin.read())).fingerprint)
"""


class StageContract:
    """Promises of ``Stage``; on these rest resume, retries, verify and byte-identical results."""

    def make(self, folder: Path) -> Stage:
        """A small stage in an empty folder; what it reads is stored already, by the stages before it."""
        raise NotImplementedError

    @pytest.fixture
    def stage(self, tmp_path: Path) -> Stage:
        stage = self.make(tmp_path)
        stage.prepare()
        return stage

    def test_it_is_a_frozen_value_with_a_name(self, stage: Stage) -> None:
        """A stage is a frozen dataclass whose name has only lower-case letters and underscores."""
        assert dataclasses.is_dataclass(stage)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(stage, dataclasses.fields(stage)[0].name, None)
        assert stage.name.replace("_", "").isalpha()
        assert stage.name == stage.name.lower()

    def test_it_travels_to_workers_and_stays_the_same(self, stage: Stage) -> None:
        """A pickled stage keeps its fingerprint, grids and resources on the worker."""
        copied = pickle.loads(pickle.dumps(stage))
        assert copied == stage
        assert copied.fingerprint == stage.fingerprint
        assert list(copied.grids()) == list(stage.grids())
        assert copied.needs() == stage.needs()

    def test_it_is_small_when_it_travels(self, stage: Stage) -> None:
        """A pickled stage is under 100 kB: arrays are opened in each process and not sent."""
        assert len(pickle.dumps(stage)) < 100_000

    def test_its_fingerprint_is_the_same_in_every_process(self, stage: Stage) -> None:
        """The fingerprint does not depend on the process, in particular not on the hash seed."""
        command = [sys.executable, "-c", FINGERPRINT]
        stored = base64.b64encode(pickle.dumps(stage)).decode()
        environment = {"PYTHONHASHSEED": "20", "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(command, input=stored, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout == stage.fingerprint

    def test_its_grids_hold_chunks_of_their_level(self, stage: Stage) -> None:
        """A stage has chunks in every grid, and each grid has a level of its own."""
        grids = stage.grids()
        assert len(grids) > 0
        assert all(len(grid) > 0 for grid in grids)
        assert len({grid.level for grid in grids}) == len(grids)
        assert all(chunk.level == grid.level for grid in grids for chunk in grid)

    def test_preparing_again_keeps_what_is_stored(self, stage: Stage) -> None:
        """Preparing a stage again, as a resumed run does, keeps its stored chunks."""
        reports = [stage.run_chunk(chunk) for chunk in every_chunk(stage)]
        stage.prepare()
        for chunk, report in zip(every_chunk(stage), reports, strict=True):
            assert checksum_of(stage.load(chunk)) == report.checksum

    def test_what_is_stored_is_what_was_reported(self, stage: Stage) -> None:
        """``load`` returns the arrays whose checksum ``run_chunk`` reported."""
        for chunk in every_chunk(stage):
            report = stage.run_chunk(chunk)
            assert (report.level, report.index, report.voxels) == (chunk.level, chunk.index, chunk.core.voxels)
            assert checksum_of(stage.load(chunk)) == report.checksum

    def test_a_chunk_may_be_computed_again_at_any_time(self, stage: Stage) -> None:
        """A chunk that is computed again, by a retry or a late worker, gives the same bytes."""
        first = [stage.run_chunk(chunk).checksum for chunk in every_chunk(stage)]
        again = [stage.run_chunk(chunk).checksum for chunk in every_chunk(stage)]
        assert again == first
        assert [checksum_of(stage.load(chunk)) for chunk in every_chunk(stage)] == first

    def test_chunks_of_a_level_come_in_any_order(self, stage: Stage) -> None:
        """The chunks of a level give the same bytes in any order."""
        expected = {chunk: stage.run_chunk(chunk).checksum for chunk in every_chunk(stage)}
        for grid in stage.grids():
            for chunk in reversed(list(grid)):
                assert stage.run_chunk(chunk).checksum == expected[chunk]
        for chunk, checksum in expected.items():
            assert checksum_of(stage.load(chunk)) == checksum

    def test_computing_is_a_pure_function_of_the_inputs(self, stage: Stage) -> None:
        """``compute`` does not change its inputs, and equal inputs give equal arrays."""
        for chunk in every_chunk(stage):
            inputs = stage.read(chunk)
            before = frozen(inputs)
            first = self.products(stage, chunk, inputs)
            assert frozen(inputs) == before
            second = self.products(stage, chunk, copy.deepcopy(inputs))
            assert sorted(first) == sorted(second)
            assert checksum_of(first) == checksum_of(second)
            assert all(isinstance(array, np.ndarray) for array in first.values())
            stage.write(chunk, first)

    def products(self, stage: Stage, chunk: Chunk, inputs: Any) -> Products:
        """Compute one chunk and check its counters; returns its arrays."""
        with stage.compute_slot():
            products, counters = stage.compute(chunk, inputs)
        assert all(isinstance(value, int | float | np.number) for value in counters.values())
        return products


def every_chunk(stage: Stage) -> list[Chunk]:
    """All chunks of all grids, in an order in which they may run."""
    return [chunk for grid in stage.grids() for chunk in grid]


def frozen(value: Any) -> Any:
    """A copy that can be compared and does not change with its original: arrays as bytes, all the way down."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, Mapping):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [frozen(item) for item in value]
    if hasattr(value, "__dict__"):
        return type(value), frozen(vars(value))
    return pickle.dumps(value)
