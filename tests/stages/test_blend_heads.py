"""What the chunks of a run hand to each other gives the bytes of one chunk, whatever the chunks and the region."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config.run_file import Execution
from pipeline.execution import make_executor
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.geometry import BoundingBox
from pipeline.inference.options import PredictOptions
from pipeline.inference.predictor import Predictor
from pipeline.models.spec import load_card, load_model
from pipeline.runs.run import Run
from pipeline.runs.verify import verify_stage
from pipeline.stages import opened
from tests.runs import write_run, write_volume

SHAPE = (20, 24, 28)
MODEL = "synthetic-tiny"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Noise, and a corner without image, where patches are not run."""
    voxels = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    voxels[:, :20, :20] = 7
    return write_volume(tmp_path_factory.mktemp("data") / "image.zarr", voxels)


def predicted(folder: Path, image: str, chunk: tuple[int, int, int], overlap: int, box: BoundingBox) -> Run:
    """A run of which the heads are stored."""
    opened.forget()
    file = write_run(
        folder,
        input={"image": image, "start": list(box.start), "stop": list(box.stop)},
        chunk_shape=list(chunk),
        storage_chunk_shape=list(chunk),
        inference={"model": MODEL, "patch_shape": [16, 16, 16], "overlap": [overlap] * 3, "any_resolution": True},
    )
    run = Run.open(file)
    run.create()
    for stage in run.stages[:2]:
        ledger = run.ledger(stage)
        run_stage(stage, ledger, make_executor("serial"), RunOptions.of(Execution(attempts=1), run.command))
        ledger.close()
    return run


@pytest.mark.parametrize("overlap", [0, 4, 13])
def test_the_heads_do_not_depend_on_chunks_and_region(tmp_path: Path, image: str, overlap: int) -> None:
    """Chunks smaller than a patch, than its step, and with parts of a region, in 16 and 32 bits; each patch once."""
    whole, part = BoundingBox.from_shape(SHAPE), BoundingBox((3, 2, 5), (19, 24, 23))
    lattice = predicted(tmp_path / "one", image, SHAPE, overlap, whole).stage("predict_heads").lattice()  # type: ignore[attr-defined]
    predictor = Predictor(load_model(load_card(MODEL)), PredictOptions())
    expected, counters = predictor.predict(opened.source(image).read(whole), core=whole, lattice=lattice)
    assert counters["skipped"] > 0
    for number, (chunk, box) in enumerate([(SHAPE, whole), ((10, 24, 14), whole), ((7, 5, 9), part)]):
        run = predicted(tmp_path / str(number), image, chunk, overlap, box)
        np.testing.assert_array_equal(run.layout.read("affinities", box), expected[:, *box.slices()])
        book = run.ledger(run.stage("predict_heads"), read_only=True)
        counts = book.summary().counters
        assert counts["patches"] + counts["skipped"] == len(lattice.touching(box))


def test_a_changed_piece_is_found_and_a_lost_one_is_named(tmp_path: Path, image: str) -> None:
    """``verify`` compares what is handed on with its checksum, and blends again what is stored."""
    run = predicted(tmp_path, image, (10, 24, 14), 4, BoundingBox.from_shape(SHAPE))
    stage, blend = run.stage("predict_heads"), run.stage("blend_heads")
    chunk = stage.grids()[0].chunk((0, 0, 0))
    pieces = {name: piece.copy() for name, piece in stage.load(chunk).items()}
    assert set(pieces) == {"0_0_0", "0_0_1", "1_0_0", "1_0_1"}
    pieces["1_0_1"][-1] ^= 64
    stage.write(chunk, pieces)
    found = verify_stage(stage, run.ledger(stage, read_only=True), 0, seed=0).findings
    assert [finding.chunk.name for finding in found] == ["0_0_0"]
    found = verify_stage(blend, run.ledger(blend, read_only=True), None, seed=0).findings
    assert [finding.chunk.name for finding in found] == ["1_0_1"]
    run.store.delete("parts/predict_heads/0_0_0")
    found = verify_stage(blend, run.ledger(blend, read_only=True), None, seed=0).findings
    assert {finding.chunk.name for finding in found} == set(pieces)
    assert "parts/predict_heads/0_0_0" in found[0].problem
