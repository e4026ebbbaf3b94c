"""``petaseg demo``: from nothing to neurons, scores and a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

SHAPE = (64, 192, 192)
SEED = 7
"""The seed of the demo's tissue; the bundled network was trained on other seeds."""

DEMO_TEXT = """\
# The demo's run: made-up tissue, a small recurrent network, neurons.
run_directory: run
input:
  image: image.zarr
chunk_shape: [64, 96, 96]
storage_chunk_shape: [32, 48, 48]
inference:
  model: synthetic-tiny
evaluation:
  labels: truth.zarr
downsample: {}   # coarser levels, meshes and tables, for viewers and for the report
meshes: {}
measures: {}
execution:
  executor: threads
  workers: 2
"""


MARK = ".petaseg-demo"
"""A file that tells a folder of ``petaseg demo`` from a folder of somebody's; written before all else."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg demo my-demo")
    def demo(
        folder: Annotated[Path, typer.Argument(help="Folder to write.")] = Path("demo-run"),
        force: Annotated[
            bool, typer.Option("--force", help="Start anew in the folder of an earlier demo; other files in it stay.")
        ] = False,
    ) -> None:
        """Make tissue with ground truth, segment it with a bundled network, score it and report it: half a minute."""
        from pipeline.runs.hints import command
        from workflows.commands.report import page_of
        from workflows.driver import run_with_progress
        from workflows.terminal.report import report_table
        from workflows.terminal.summary import show_summary
        from workflows.terminal.tables import console, next_commands, run_table

        began = time.perf_counter()
        file = prepare(folder, force=force)
        session = run_with_progress(str(file), report=True)
        run_table(session)
        if session.report is not None:
            show_summary(session.report.summary)
            report_table(session.run, session.report)
        console.print(f"page to look at    {page_of(session.run).place}", highlight=False, soft_wrap=True)
        console.print(f"\nall of it took {time.perf_counter() - began:.0f} s\n", highlight=False)
        next_commands(
            {
                command("view", str(file)): "image, affinities and neurons in a browser",
                command("relabel", str(file), (), "--threshold", "0.8"): "another threshold",
                command("verify", str(file)): "prove every stored chunk",
                command("status", str(file)): "chunks done and failed, from outside",
                "petaseg init run.yaml --image your_volume.zarr": "your own data",
            }
        )


def prepare(folder: Path, *, force: bool) -> Path:
    """Write image, ground truth and run file, or keep those that are there; returns the run file.

    Raises ``ConfigError`` for a folder that ``petaseg demo`` has not made, and for a run file that somebody has changed
    since, if it would be replaced.
    """
    from workflows.terminal.tables import console, progress_console

    file = folder / "run.yaml"
    _refuse_others(folder)
    if file.is_file() and not force:
        console.print(f"going on in {folder} (--force starts anew)")
        return file
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    if force:
        _discard(folder)
    with progress_console.status(f"making tissue of {' x '.join(map(str, SHAPE))} voxels ..."):
        write_tissue(folder)
    file.write_text(DEMO_TEXT)
    return file


def _refuse_others(folder: Path) -> None:
    from pipeline.errors import ConfigError

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder: petaseg demo my-demo")
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise ConfigError(
            f"{folder} is not empty, and petaseg demo has not made it (there is no {MARK} in it), so nothing in it is "
            "used or replaced; name another folder: petaseg demo my-demo"
        )


def _discard(folder: Path) -> None:
    """Delete the results and the run file of an earlier demo; its volumes are replaced later, if petaseg made them."""
    from pipeline.config.run_file import Execution
    from pipeline.errors import ConfigError
    from pipeline.runs.directory import discard, read_mark
    from pipeline.runs.lease import Lease
    from pipeline.storage import ObjectStore

    file, results = folder / "run.yaml", ObjectStore(folder / "run")
    if file.is_file() and file.read_text() != DEMO_TEXT:
        raise ConfigError(f"{file} was changed since petaseg demo wrote it, and --force would replace it; move it away")
    if read_mark(results) is not None:
        with Lease(results, seconds=Execution().lease_seconds):
            discard(results)
    file.unlink(missing_ok=True)


def write_tissue(folder: Path) -> None:
    """Write ``image.zarr`` and ``truth.zarr``."""
    from pipeline.geometry import BoundingBox, Vec
    from pipeline.synthetic.tissue import make_tissue
    from pipeline.volumes import create_volume
    from pipeline.volumes.base import VolumeSpec

    tissue = make_tissue(SHAPE, seed=SEED)
    box = BoundingBox.from_shape(SHAPE)
    for name, array in (("image", tissue.image), ("truth", tissue.labels)):
        spec = VolumeSpec(box, tissue.resolution_nm, array.dtype, storage_chunk=Vec(32, 48, 48))
        create_volume(str(folder / f"{name}.zarr"), spec, overwrite=True).write(box, array)
