"""Promise 1 on random volumes: whatever the shapes, the chunked run gives the bytes of the unchunked one."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.config.run_file import Execution
from pipeline.execution import make_executor
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.runs.run import Run
from pipeline.stages import opened
from tests.runs import results, write_run, write_volume

SIDES = st.tuples(*(st.integers(5, 30) for _ in range(3)))
CHUNKS = st.tuples(*(st.integers(4, 20) for _ in range(3)))


def tissue(shape, seed, grain):
    """Random affinities of blobs with faint and strong borders, many equal values, and missing planes."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(3, *shape)), (0, grain, grain, grain))
    values = 128 + 90 * noise / max(1e-9, float(np.abs(noise).std()))
    affinities = np.clip(values / 16, 0, 15.9).astype(np.uint8) * 17
    affinities[:, rng.integers(shape[0])] = rng.choice([0, 255])
    return affinities


def run_stages(folder, tables):
    opened.forget()
    run = Run.open(write_run(folder, **tables))
    run.create()
    for stage in run.stages:
        run_stage(
            stage,
            run.ledger(stage),
            make_executor("serial"),
            RunOptions.of(Execution(attempts=1), "petaseg run run.yaml"),
        )
    return results(run)


@settings(max_examples=12)
@given(
    shape=SIDES,
    chunk=CHUNKS,
    offset=st.tuples(*(st.integers(-9, 9) for _ in range(3))),
    seed=st.integers(0, 2**32 - 1),
    grain=st.floats(0, 2),
    masked=st.booleans(),
    mode=st.sampled_from(["volume", "section"]),
    linkage=st.sampled_from(["mean", "quantile"]),
)
def test_a_random_volume_in_random_chunks(shape, chunk, offset, seed, grain, masked, mode, linkage):
    """A random volume, with many ties and missing planes, gives the same bytes in random chunks and unchunked."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        affinities = tissue(shape, seed, grain)
        source = {"affinities": write_volume(folder / "affinities.zarr", affinities, (9, 8, 7), offset)}
        if masked:
            inside = np.random.default_rng(seed + 1).random(shape) < 0.9
            source["mask"] = write_volume(folder / "mask.zarr", inside.astype(np.uint8), (9, 8, 7), offset)
        tables = {
            "input": source,
            "supervoxels": {"mode": mode},
            "agglomeration": {"linkage": linkage, "stop_score": 0.05},
            "segmentation": {"threshold": 0.4, "min_size": 30},
        }
        whole = run_stages(
            folder / "whole", {**tables, "chunk_shape": [32, 32, 32], "storage_chunk_shape": [32, 32, 32]}
        )
        shapes = {"chunk_shape": list(chunk), "storage_chunk_shape": list(chunk)}
        assert run_stages(folder / "chunked", {**tables, **shapes}) == whole
