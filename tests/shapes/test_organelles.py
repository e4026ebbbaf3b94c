"""``organelles``: which objects of another volume lie in which neuron, the same table in any chunking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.evaluation.contingency import Contingency
from pipeline.runs.run import Run
from pipeline.runs.verify import verify_run
from pipeline.shapes.measure_tables import read_table
from pipeline.shapes.organelles import hosted, table_of
from pipeline.stages.count_inside import TABLE, in_ranges
from pipeline.viewing.properties import segment_properties
from pipeline.volumes import open_volume
from tests.runs import petaseg, run, write_volume
from tests.shapes.test_measured_runs import SHAPE, measured


def write_objects(folder: Path, name: str, block: int, offset: int = 0) -> str:
    """Objects that are blocks, with background between them; the volume begins at ``offset`` along z."""
    rng = np.random.default_rng(block)
    blocks = rng.integers(0, 4, [-(-side // block) for side in SHAPE]).astype(np.uint32)
    numbered = np.where(blocks > 0, np.arange(1, blocks.size + 1).reshape(blocks.shape), 0).astype(np.uint32)
    voxels = np.kron(numbered, np.ones((block,) * 3, np.uint32))[offset : SHAPE[0], : SHAPE[1], : SHAPE[2]]
    path = write_volume(folder / f"{name}.zarr", voxels)
    return f"{path}#offset={offset},0,0" if offset else path


def expected(finished: Run, url: str) -> list[tuple[int, int, int]]:
    """Object, id and voxels of every pair, counted over the whole volume at once."""
    objects = open_volume(url)
    box = finished.layout.roi.intersect(objects.spec.bounds)
    pairs = np.stack([objects.read(box), open_volume(finished.result_url).read(box)], axis=-1).reshape(-1, 2)
    found, counts = np.unique(pairs[pairs[:, 0] > 0], axis=0, return_counts=True)
    return [(int(a), int(b), int(n)) for (a, b), n in zip(found, counts, strict=True)]


def test_any_chunk_shape_gives_the_table_of_the_whole(tmp_path: Path) -> None:
    """Every pair of an object and a neuron has its row, in the order of names, objects and ids, in any chunking."""
    written = {}
    for chunk in [SHAPE, (10, 12, 14), (7, 24, 9)]:
        folder = tmp_path / str(chunk)
        folder.mkdir()
        volumes = {"nuclei": write_objects(folder, "nuclei", 7), "mitochondria": write_objects(folder, "mito", 3, 5)}
        finished = run(measured(folder, chunk, organelles={"volumes": volumes}))
        written[chunk] = (folder / "run" / TABLE).read_bytes()
    assert len(set(written.values())) == 1
    table = pq.read_table(folder / "run" / TABLE)
    rows = list(zip(*(table[name].to_pylist() for name in ("object", "id", "inside")), strict=True))
    assert rows == [row for name in ("mitochondria", "nuclei") for row in expected(finished, volumes[name])]
    assert table["organelle"].to_pylist() == sorted(table["organelle"].to_pylist())
    assert all(proof.proven for proof in verify_run(finished, None, seed=0))


def test_each_object_has_one_host_and_shares_that_add_up() -> None:
    """The host has most of the object, of equal ones it is the smaller id; shares of an object add up to one."""
    objects, ids = np.array([1, 1, 2, 3, 3], np.uint64), np.array([0, 7, 7, 5, 9], np.uint64)
    table = table_of("nuclei", objects, ids, np.array([3, 3, 1, 2, 4])).to_pydict()
    assert table["host"] == [True, False, True, False, True]
    assert table["voxels"] == [6, 6, 1, 6, 6]
    assert table["share"] == pytest.approx([0.5, 0.5, 1, 1 / 3, 2 / 3])
    columns = {name: np.array(values) for name, values in table.items()}
    assert hosted(columns, np.array([9, 5, 7, 0], np.uint64))["nuclei"].tolist() == [1, 0, 1, 1]
    none = np.zeros(0, np.uint64)
    assert table_of("nuclei", none, none, none.astype(np.int64)).num_rows == 0


def test_ranges_of_objects_make_the_whole_table() -> None:
    """Added up in small ranges, the rows are those of all parts at once."""
    rng = np.random.default_rng(0)
    parts = [Contingency.from_labels(rng.integers(0, 5000, 900), rng.integers(0, 4, 900)) for _ in range(4)]
    ranges = list(in_ranges(lambda: iter(parts), 200))
    assert len(ranges) > 2
    joined = [np.concatenate([getattr(each, name) for each in ranges]) for name in ("truth", "predicted", "voxels")]
    assert Contingency(*joined) == Contingency.sum(parts)


def test_organelles_are_added_to_a_finished_run_and_counted_in_the_viewer(tmp_path: Path, monkeypatch) -> None:
    """A relative path counts from the run file's folder; nothing else is computed; the viewer filters by the count."""
    file = measured(tmp_path, (10, 12, 14), measures={})
    finished = run(file)
    write_objects(tmp_path, "nuclei", 7)
    said = petaseg("add", file, "organelles", "--set", "organelles.volumes.nuclei=nuclei.zarr")
    assert said.returncode == 0, said.stderr
    assert "computed count_inside;" in said.stdout
    again = Run.open(finished.url)
    assert again.config.organelles.volumes == {"nuclei": str(tmp_path / "nuclei.zarr")}
    shown = segment_properties(again)["inline"]
    counts = next(each for each in shown["properties"] if each["id"] == "nuclei")["values"]
    columns = read_table((tmp_path / "run" / TABLE).read_bytes())
    assert sum(counts) == (columns["host"] & (columns["id"] > 0)).sum() > 0


def test_the_viewer_knows_the_length_of_each_skeleton(tmp_path: Path) -> None:
    """With skeletons, neurons can be filtered by path length; one without a skeleton has 0."""
    finished = run(measured(tmp_path, (10, 12, 14), measures={}, skeletons={"smallest_voxels": 50}))
    shown = segment_properties(finished)["inline"]
    lengths = next(each for each in shown["properties"] if each["id"] == "length_um")["values"]
    columns = read_table((tmp_path / "run" / "tables/skeletons.parquet").read_bytes())
    assert sum(lengths) == pytest.approx(columns["path_length_nm"].sum() / 1e3, rel=1e-5)
    assert 0 < np.count_nonzero(lengths) <= len(columns["id"]) < len(lengths)


def test_another_threshold_counts_again(tmp_path: Path) -> None:
    """After ``segmentation.threshold`` the table is that of the new neurons."""
    objects = write_objects(tmp_path, "nuclei", 7)
    file = measured(tmp_path, (10, 12, 14), organelles={"volumes": {"nuclei": objects}})
    run(file)
    finished = run(file, "segmentation.threshold=0.7")
    columns = read_table((tmp_path / "run" / TABLE).read_bytes())
    rows = list(zip(*(columns[name].tolist() for name in ("object", "id", "inside")), strict=True))
    assert rows == expected(finished, objects)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("objects.zarr#offset=900,0,0", "covers nothing of the region|nothing of the region"),
        ("objects.zarr#resolution=9,9,9", "the volume of nuclei .* has voxels of"),
        ("affinities.zarr", "the volume of nuclei .* 3 channels"),
    ],
)
def test_objects_that_do_not_fit_are_refused(tmp_path: Path, url: str, says: str) -> None:
    """A volume elsewhere, with other voxels, or of several channels is refused before anything is computed."""
    write_objects(tmp_path, "objects", 7)
    file = measured(tmp_path, (10, 12, 14), organelles={"volumes": {"nuclei": url}})
    with pytest.raises(Exception, match=says) as refused:
        Run.open(file)
    assert isinstance(refused.value, ConfigError) or "VolumeError" in type(refused.value).__name__
