"""Files of other versions of petaseg: of earlier ones they are read, of newer ones they are refused.

``version1`` holds files as petaseg wrote them before they named a version. They are never written anew.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pipeline import formats
from pipeline.clusters.base import DRIVER_RECORD, DriverJob
from pipeline.config.reading import load_config
from pipeline.errors import ClusterError, ConfigError, LeaseError, LedgerError, ModelError, PetasegError, VolumeError
from pipeline.few_labels.self_training import read_record
from pipeline.few_labels.suggestions import read_table
from pipeline.formats import FileFormat
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.records import Failure, encode
from pipeline.models.spec import load_card, save_model
from pipeline.runs.added import read_added
from pipeline.runs.applied import Applied, read_applied
from pipeline.runs.cost import read_rates, write_rates
from pipeline.runs.directory import InputMark, read_mark
from pipeline.runs.edit_log import EditLog, Entry, read_log
from pipeline.runs.launch import driver_of
from pipeline.runs.lease import KEY, Fence, Holder, Lease, LeaseRecord, read_lease
from pipeline.runs.outline import RunOutline, read_outline
from pipeline.runs.run import Run
from pipeline.runs.status import read_status
from pipeline.segmentation.edits import Edit
from pipeline.stages import fastest
from pipeline.stages.environment import Environment, recorded
from pipeline.stages.extent import recorded_layout
from pipeline.storage import ObjectStore
from pipeline.suspects.model import Model
from pipeline.viewing.state import stored_state
from pipeline.volumes.marker import Marker
from tests.ledger.ledgers import CHUNKS, FOLDER, GRID, contents, ledger
from tests.runs import petaseg, write_run, write_volume
from workflows.driver import segment

OLD = Path(__file__).parent / "version1"
CONSTANTS = {name: value for name, value in vars(formats).items() if isinstance(value, FileFormat)}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the files of version 1, which a test may change."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def outline_of(folder: Path) -> RunOutline:
    outline = read_outline(ObjectStore(folder / "run"))
    assert outline is not None
    return outline


def change(path: Path, **fields: object) -> None:
    """Give a JSON or YAML file further fields, or others."""
    data = yaml.safe_load(path.read_text())
    path.write_text(json.dumps({**data, **fields}) if path.suffix == ".json" else yaml.safe_dump({**data, **fields}))


# -- files of version 1 -----------------------------------------------------------------------------------------------


def test_a_lease_of_version_1_is_read(old: Path) -> None:
    live = LeaseRecord.decode((old / "leases" / "live.json").read_bytes())
    holder = Holder("node-3", 4242, 1790000000.25, "slurm 4711", 2)
    assert live == LeaseRecord(holder, "b3a7", 1790000100.5, released=False, term="a5c1")
    released = read_lease(ObjectStore(old / "run"))
    assert released is not None
    assert (released.released, released.holder.host) == (True, "node-3")


def test_an_environment_of_version_1_is_read(old: Path) -> None:
    """A run of an earlier petaseg goes on under the environment in which it began; a further field is ignored."""
    change(old / "run" / "environments" / "0c.json", invented=1)
    names = {"device": "cpu", "torch": "2.13.0", "processor": "AMD EPYC", "instructions": "AVX512 avx512_bf16"}
    assert recorded(ObjectStore(old / "run"), "0c") == Environment("0d" * 16, names, "node-3")


def test_a_measured_precision_of_version_1_is_read(old: Path) -> None:
    """A run of an earlier petaseg goes on in the precision in which it began."""
    change(old / "run" / "precisions" / "0e.json", invented=1)
    rates = {"float32": 2.8e6, "bfloat16": 5.4e6}
    found = fastest.recorded(ObjectStore(old / "run"), "0e")
    assert found == fastest.Fastest("bfloat16", rates, "voxels a CPU-second", "node-3")


def in_memory(folder: Path) -> ObjectStore:
    """A copy in a store in which nothing can be appended."""
    store = ObjectStore(f"mem://{uuid.uuid4().hex}")
    for key in ObjectStore(folder).list():
        store.put(key, (folder / key).read_bytes())
    return store


@pytest.mark.parametrize(
    ("layout", "done", "failed", "notes"),
    [
        ("lines", 3, True, ["node node-3 is avoided"]),
        ("segments", 5, False, []),
        ("compacted", 5, True, []),
    ],
)
@pytest.mark.parametrize("place", ["in a folder", "in a bucket"])
def test_a_ledger_of_version_1_is_read_and_goes_on(
    old: Path, layout: str, place: str, done: int, failed: bool, notes: list[str]
) -> None:
    """Lines, segments and arrays of version 1 give their marks, and later records join them."""
    store = ObjectStore(old / layout) if place == "in a folder" else in_memory(old / layout)
    book = ledger(store)
    assert not book.other_fingerprint
    assert list(book.pending(GRID)) == CHUNKS[done:]
    assert [book.checksum(chunk) for chunk in CHUNKS[:done]] == [f"{n + 1:032x}" for n in range(done)]
    assert book.chunk_seconds(GRID).tolist() == [0.5 + n for n in range(done)]
    summary = book.summary()
    assert (summary.voxels, summary.counters) == (80 * done, {"patches": 2.0 * done})
    assert summary.bytes_written == sum(1000 + n for n in range(done))
    failure = Failure(CHUNKS[5].name, 0, CHUNKS[5].index, "ValueError: no", "trace", 3)
    assert book.quarantined() == ([failure] if failed else [])
    assert book.notes() == notes
    book.note("written by this version")
    book.compact()
    assert list(ledger(store).pending(GRID)) == CHUNKS[done:]


def test_a_run_directory_of_version_1_is_read(old: Path) -> None:
    """Outline, configuration and ledgers of a finished run tell its state."""
    outline = outline_of(old)
    assert outline.command == "petaseg run /data/em/run.yaml"
    assert outline.cluster is None
    assert (outline.config.run_directory, outline.config.chunk_shape) == ("/data/em/run", (8, 8, 4))
    assert outline.config.segmentation.min_size == 2
    extract, agglomerate = outline.stages[0], outline.stages[2]
    assert (extract.name, extract.fingerprint) == ("extract_supervoxels", "3b3131e2e00cca6bb3877029ed871687")
    assert (extract.gpus, extract.network) == (0, False)
    assert [chunk.core.stop for grid in extract.grids for chunk in grid] == [(8, 8, 4), (8, 8, 8)]
    assert (agglomerate.name, [len(grid) for grid in agglomerate.grids]) == ("agglomerate", [2, 1])
    assert all(stage.complete and not stage.outdated for stage in read_status(outline))


def test_the_small_files_of_version_1_are_read(old: Path) -> None:
    """Measured rates, the record of a submitted driver, a model's card and the marker of an ingest are read."""
    assert read_rates(ObjectStore(old / "run")) == {"extract_supervoxels": 1.5e-06, "relabel": 2.5e-07}
    job = DriverJob("slurm", "4711", {"log": "/data/em/run/cluster/driver-4711.log"})
    assert driver_of(outline_of(old)) == job
    card, bundled = load_card(old / "model"), load_card("identity")
    assert (card.model_dump(), card.digest) == (bundled.model_dump(), bundled.digest)
    assert Marker(str(old / "image.zarr"), "0f" * 16).blocks_done() == 7
    assert read_mark(ObjectStore(old / "run")) == InputMark("/data/em/affinities.zarr", "5a2c")
    assert recorded_layout(ObjectStore(old / "run"), "relabel") == "5b3d"
    applied = Applied({"threshold": 0.3}, {"threshold": 0.5, "min_size": 2})
    assert read_applied(ObjectStore(old / "run")) == applied


def test_edits_of_version_1_are_read_and_written(old: Path) -> None:
    """Supervoxels keep all of their 64 bits, and this petaseg writes the same bytes."""
    entries = (
        Entry(Edit("merge", (7,), (2**64 - 1,)), "2026-11-30T09:30:00Z"),
        Entry(Edit("split", (1, 5), (9,)), "2026-11-30T09:31:00Z"),
    )
    assert read_log(ObjectStore(old / "run")) == EditLog(entries)
    assert EditLog(entries).encode() == (old / "run" / "edits.json").read_bytes()


# -- files of this version --------------------------------------------------------------------------------------------


def test_every_file_says_its_version(tmp_path: Path, old: Path) -> None:
    """What petaseg writes now names its version, and is read again."""
    store = ObjectStore(tmp_path / "run")
    Lease(store, seconds=60).acquire()
    write_rates(store, {"relabel": 1.0})
    store.put(DRIVER_RECORD, DriverJob("slurm", "7").encode())
    store.put("run.yaml", (old / "run" / "run.yaml").read_bytes())
    outline = outline_of(old)
    RunOutline(store.url, outline.command, outline.config, outline.stages).write()
    Marker(str(tmp_path / "image.zarr"), "f").put(3)
    save_model(tmp_path / "model", torch.nn.Linear(1, 1), load_card("identity"))
    assert yaml.safe_load((tmp_path / "model" / "card.yaml").read_text())["version"] == 1
    for path in (*(tmp_path / "run").rglob("*.json"), tmp_path / "image.zarr.ingest.json"):
        assert json.loads(path.read_text())["version"] == 1, path
    assert (read_rates(store), driver_of(outline_of(tmp_path))) == ({"relabel": 1.0}, DriverJob("slurm", "7"))
    book = ledger(store)
    book.compact()
    assert b'"version":1' in store.get(f"{FOLDER}/log.jsonl").splitlines()[0]
    assert store.get_arrays(f"{FOLDER}/compact.npz")["version"] == 1


def test_the_run_file_in_a_run_directory_says_its_version(tmp_path: Path) -> None:
    """``petaseg run`` writes the configuration with its version, and opens it again."""
    affinities = write_volume(tmp_path / "affinities.zarr", np.zeros((3, 4, 4, 4), np.uint8))
    chunks = {"chunk_shape": [4, 4, 4], "storage_chunk_shape": [4, 4, 4]}
    run = Run.open(write_run(tmp_path, input={"affinities": affinities}, **chunks))
    run.create()
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["version"] == 1
    assert Run.open(tmp_path / "run").config == run.config


# -- files of newer versions ------------------------------------------------------------------------------------------


def newer(what: FileFormat) -> int:
    return what.version + 1


def look_into_run(old: Path) -> object:
    return outline_of(old)


def read_extent(old: Path) -> object:
    return recorded_layout(ObjectStore(old / "run"), "relabel")


def settings_of(path: Path) -> list[object]:
    """The fields of a self-training's settings that this version compares."""
    found = read_record(path)
    assert found is not None
    return [found[key] for key in ("training", "unlabelled", "box")]


NEWER: dict[str, tuple[str, FileFormat, type[PetasegError], Callable[[Path], object]]] = {
    "a lease": ("run/lease.json", formats.LEASE, LeaseError, lambda old: read_lease(ObjectStore(old / "run"))),
    "an outline": ("run/stages.json", formats.OUTLINE, LedgerError, look_into_run),
    "the run file beside an outline": ("run/run.yaml", formats.RUN_FILE, LedgerError, look_into_run),
    "a run file": ("run/run.yaml", formats.RUN_FILE, ConfigError, lambda old: load_config(old / "run" / "run.yaml")),
    "measured rates": ("run/plan.json", formats.RATES, LedgerError, lambda old: read_rates(ObjectStore(old / "run"))),
    "a driver's job": ("run/cluster/driver.json", formats.DRIVER, ClusterError, lambda old: driver_of(outline_of(old))),
    "an environment": (
        *("run/environments/0c.json", formats.ENVIRONMENT, LedgerError),
        lambda old: recorded(ObjectStore(old / "run"), "0c"),
    ),
    "a measured precision": (
        *("run/precisions/0e.json", formats.PRECISION, LedgerError),
        lambda old: fastest.recorded(ObjectStore(old / "run"), "0e"),
    ),
    "a card": ("model/card.yaml", formats.CARD, ModelError, lambda old: load_card(old / "model")),
    "an extent": ("run/ledger/relabel/extent.json", formats.EXTENT, LedgerError, read_extent),
    "the mark of a run directory": (
        *("run/petaseg.json", formats.MARK, LedgerError),
        lambda old: read_mark(ObjectStore(old / "run")),
    ),
    "what relabel has applied": (
        *("run/segmentation.json", formats.SEGMENTATION, LedgerError),
        lambda old: read_applied(ObjectStore(old / "run")),
    ),
    "what was added": (
        *("run/added.json", formats.ADDED, LedgerError),
        lambda old: read_added(ObjectStore(old / "run")),
    ),
    "edits": (
        *("run/edits.json", formats.EDITS, LedgerError),
        lambda old: read_log(ObjectStore(old / "run")),
    ),
    "a marker": (
        *("image.zarr.ingest.json", formats.INGEST, VolumeError),
        lambda old: Marker(str(old / "image.zarr"), "0f" * 16).blocks_done(),
    ),
    "a self-training": (
        *("self/self-train.json", formats.SELF_TRAINING, ConfigError),
        lambda old: settings_of(old / "self" / "self-train.json"),
    ),
    "suggestions": (
        *("self/suggestions.json", formats.SUGGESTIONS, ConfigError),
        lambda old: read_table(old / "self" / "suggestions.json"),
    ),
    "a view": (
        *("run/view.json", formats.VIEW, VolumeError),
        lambda old: stored_state(ObjectStore(old / "run"), "http://127.0.0.1:1/secret"),
    ),
    "a model of suspects": (
        *("run/tables/suspects.json", formats.SUSPECTS_MODEL, ModelError),
        lambda old: Model.load(str(old / "run" / "tables" / "suspects.json")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEWER)
def test_a_newer_file_is_refused_with_what_to_do(old: Path, name: str) -> None:
    """A file of a newer format is refused by its version, also if its fields are others, and it stays as it is."""
    file, what, error, read = NEWER[name]
    change(old / file, version=newer(what), invented={"by": "a newer petaseg"})
    before = (old / file).read_bytes()
    said = (
        rf"{Path(file).name} was written by a newer petaseg \(format {newer(what)}; this one reads up to "
        rf"{what.version}\); use that version, or {what.instead}"
    )
    with pytest.raises(error, match=said):
        read(old)
    assert (old / file).read_bytes() == before


@pytest.mark.parametrize("file", ["stages.json", "run.yaml"])
def test_a_driver_writes_over_no_newer_file(tmp_path: Path, file: str) -> None:
    """``petaseg run`` in the run directory of a newer petaseg is refused and leaves outline and configuration alone."""
    affinities = write_volume(tmp_path / "affinities.zarr", np.zeros((3, 4, 4, 4), np.uint8))
    chunks = {"chunk_shape": [4, 4, 4], "storage_chunk_shape": [4, 4, 4]}
    run = Run.open(write_run(tmp_path, input={"affinities": affinities}, **chunks))
    run.create()
    change(tmp_path / "run" / file, version=2)
    before = (tmp_path / "run" / file).read_bytes()
    with pytest.raises(LedgerError, match=rf"{file} was written by a newer petaseg"):
        run.create()
    assert (tmp_path / "run" / file).read_bytes() == before
    (tmp_path / "run" / file).write_text("{damaged")
    run.create()
    assert [stage.fingerprint for stage in outline_of(tmp_path).stages] == [stage.fingerprint for stage in run.stages]


def test_a_driver_says_which_ledger_is_newer(tmp_path: Path) -> None:
    """``petaseg run`` ends with the ledger's own message if a newer petaseg wrote it, not with Luigi's."""
    affinities = write_volume(tmp_path / "affinities.zarr", np.zeros((3, 4, 4, 4), np.uint8))
    chunks = {"chunk_shape": [4, 4, 4], "storage_chunk_shape": [4, 4, 4]}
    file = write_run(tmp_path, input={"affinities": affinities}, **chunks)
    segment(str(file))
    name = f"{'0' * 32} {uuid.uuid4().hex}"
    begin = encode({"begin": name, "version": newer(formats.LEDGER), "t": 0.0})
    ObjectStore(tmp_path / "run").put("ledger/relabel/log.jsonl", begin + begin)
    with pytest.raises(LedgerError, match=r"relabel/log.jsonl:1 was written by a newer petaseg"):
        segment(str(file))


def begin_newer_log(store: ObjectStore, fingerprint: str) -> None:
    """A log as a newer petaseg may write it, with a record that this one cannot understand."""
    name = f"{fingerprint} {uuid.uuid4().hex}"
    begin = encode({"begin": name, "version": newer(formats.LEDGER), "t": 0.0})
    key = f"{FOLDER}/log.jsonl" if store.supports_append else f"{FOLDER}/log-000000.jsonl"
    store.put(key, begin + begin + encode({"finished": "0/0/0"}, name))


@pytest.mark.parametrize("place", ["in a folder", "in a bucket"])
@pytest.mark.parametrize("fingerprint", ["A", "B"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_ledger_is_never_begun_anew(tmp_path: Path, place: str, fingerprint: str, read_only: bool) -> None:
    """A newer log is refused when it is opened, also if it counts for another configuration."""
    store = ObjectStore(tmp_path if place == "in a folder" else f"mem://{uuid.uuid4().hex}")
    begin_newer_log(store, fingerprint)
    before = contents(store)
    with pytest.raises(LedgerError, match=r"log.*jsonl:1 was written by a newer petaseg \(format 2"):
        ledger(store, read_only=read_only)
    assert contents(store) == before


def test_newer_arrays_of_a_ledger_are_refused(old: Path) -> None:
    """Newer arrays are not damaged: their chunks are not computed again."""
    store, key = ObjectStore(old / "compacted"), f"{FOLDER}/compact.npz"
    store.put_arrays(key, {**store.get_arrays(key), "version": np.array(newer(formats.LEDGER))})
    before = contents(store)
    with pytest.raises(LedgerError, match=r"compact\.npz was written by a newer petaseg"):
        ledger(store)
    assert contents(store) == before


def test_a_reader_notices_that_a_newer_petaseg_began_the_log_anew(tmp_path: Path) -> None:
    """A reader that looks again opens the newer log, and is refused."""
    store = ObjectStore(tmp_path)
    ledger(store).begin()
    reader: Ledger = ledger(store, read_only=True)
    begin_newer_log(store, "A")
    assert not reader.refresh()


@pytest.mark.parametrize("file", ["stages.json", "lease.json"])
def test_a_watch_of_a_newer_run_ends_with_its_message(old: Path, file: str) -> None:
    """``petaseg status --watch`` of a run of a newer petaseg says so and ends."""
    change(old / "run" / file, version=2)
    for watch in ([], ["--watch", "--interval", "0.1"]):
        shown = petaseg("status", old / "run", *watch, timeout=60)
        assert shown.returncode == 1
        assert "was written by a newer petaseg" in shown.stderr.replace("\n", " ")


# -- other fields, other values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NEWER if "run file" not in name and "card" not in name])
def test_a_field_that_this_version_does_not_know_changes_nothing(old: Path, name: str) -> None:
    file, what, _, read = NEWER[name]
    expected = read(old)
    change(old / file, version=what.version, invented={"by": "somebody"})
    assert read(old) == expected


@pytest.mark.parametrize("name", ["a run file", "a card"])
def test_an_unknown_key_of_a_file_that_people_write_is_refused(old: Path, name: str) -> None:
    file, what, error, read = NEWER[name]
    change(old / file, version=what.version, invented=1)
    with pytest.raises(error, match="invented: unknown key"):
        read(old)


@pytest.mark.parametrize("name", NEWER)
@pytest.mark.parametrize("version", ["2", 0, -1, 1.5, True, None])
def test_a_version_that_is_no_number_is_damage(old: Path, name: str, version: Any) -> None:
    """A version that is no whole number from 1 is an error like any other damage; such a lease has no known holder."""
    file, _, _, read = NEWER[name]
    change(old / file, version=version)
    if name == "an extent":
        assert read(old) is None  # strays are looked for again
        return
    if name == "a lease":
        assert read_lease(ObjectStore(old / "run")).damaged  # type: ignore[union-attr]
        return
    with pytest.raises(PetasegError, match=r"version is .*; it must be a whole number from 1"):
        read(old)


def test_every_format_has_its_test() -> None:
    """Each format of the table is refused above if it is newer; checkpoints are tested with the trainer."""
    tested = {what for _, what, _, _ in NEWER.values()} | {formats.LEDGER, formats.CHECKPOINT}
    assert set(CONSTANTS.values()) == tested


def test_a_worker_of_an_earlier_driver_is_stopped_by_a_newer_lease(old: Path) -> None:
    change(old / "run" / KEY, version=2)
    with pytest.raises(LeaseError, match="newer petaseg"):
        Fence(ObjectStore(old / "run"), "its own term").may_write()
