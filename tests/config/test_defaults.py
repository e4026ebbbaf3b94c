"""A default stands in a configuration table; what else names it says the same."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipeline.config.base import STORAGE_CHUNK
from pipeline.config.reading import load_config
from pipeline.config.run_file import DEFAULT_THRESHOLD, Execution, Inference, RunConfig, Segmentation
from pipeline.execution.dask import DaskExecutor
from pipeline.execution.runner import RunOptions
from pipeline.execution.threads import ThreadExecutor
from pipeline.inference.options import PredictOptions
from workflows.commands import ingest
from workflows.commands.init import write_example


def test_the_example_of_petaseg_init_writes_the_defaults(tmp_path: Path) -> None:
    """A key that the example writes has the value that it has when left out, but for chunks that fit the model."""
    write_example(tmp_path / "run.yaml", "image.zarr")
    written = load_config(tmp_path / "run.yaml")
    chunks = {name: getattr(written, name) for name in ("chunk_shape", "storage_chunk_shape")}
    plain = RunConfig(run_directory=written.run_directory, input=written.input, **chunks)
    assert written == plain


def test_a_run_meets_failures_as_the_table_says() -> None:
    """Every key of ``execution`` about failures reaches the runner under its name."""
    table = Execution(attempts=7, backoff_seconds=0.25, timeout_seconds=9.0, max_in_flight=5)
    options = RunOptions.of(table, "petaseg run mine.yaml")
    shared = {field.name for field in fields(RunOptions)} & set(Execution.model_fields)
    assert shared == {"attempts", "backoff_seconds", "timeout_seconds", "max_in_flight"}
    assert {name: getattr(options, name) for name in shared} == table.model_dump(include=shared)
    assert options.retry_command == "petaseg run mine.yaml"


def test_executors_have_the_defaults_of_the_table() -> None:
    table, dask = Execution(), DaskExecutor()
    assert (dask.workers, dask.threads_per_worker) == (table.workers, table.threads_per_worker)
    assert ThreadExecutor().workers == table.workers


@pytest.mark.parametrize("name", ["batch_size", "device", "gpu", "compile", "threads"])
def test_a_predictor_has_the_defaults_of_the_table(name: str) -> None:
    value: Any = getattr(PredictOptions(), name)
    assert value == getattr(Inference(), name)


def test_texts_name_the_defaults_that_stand_in_no_table() -> None:
    """Where a text says what is taken if a value is left out, it says what is taken."""
    text = Segmentation.model_fields["threshold"].description or ""
    assert text.endswith(f"or {DEFAULT_THRESHOLD}.")
    app = typer.Typer()
    ingest.register(app)
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert f"{','.join(map(str, STORAGE_CHUNK))} if left out" in shown
    assert RunConfig.model_fields["storage_chunk_shape"].default == STORAGE_CHUNK
