"""Full and read-only disks, missing rights, dying and hanging workers are reported clearly, and no chunk is lost.

Where this process may mount file systems, real ones (tmpfs) are filled and turned read-only. Everywhere, the same
tests also run with a store that refuses like one.
"""

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.config.run_file import Execution
from pipeline.errors import PetasegError, StageFailed, StorageError
from pipeline.execution.base import Executor
from pipeline.execution.dask import DaskExecutor
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.execution.serial import SerialExecutor
from pipeline.execution.threads import ThreadExecutor
from pipeline.ledger.ledger import Ledger, Summary
from pipeline.storage import ObjectStore, storage_errors
from tests.contracts.toy import ToyStage

COMMAND = "petaseg run tissue.yaml"


def run(stage: ToyStage, executor: Executor | None = None, **options) -> Summary:
    """Run a stage as ``petaseg run`` does."""
    settings = RunOptions.of(Execution(**options), COMMAND, sleep=lambda _: None)
    ledger = Ledger(stage.store, stage.name, stage.fingerprint, stage.grids())
    try:
        return run_stage(stage, ledger, executor or SerialExecutor(), settings)
    finally:
        ledger.close()


def done(stage: ToyStage) -> set[str]:
    ledger = Ledger(stage.store, stage.name, stage.fingerprint, stage.grids(), read_only=True)
    return {chunk.name for chunk in stage.chunks() if ledger.is_done(chunk)}


def undisturbed(folder: Path) -> dict[str, bytes]:
    """The objects that the stage stores when nothing goes wrong."""
    stage = ToyStage(ObjectStore(folder))
    run(stage)
    return stage.stored()


class PretendingStore(ObjectStore):
    """A folder that refuses as a full or read-only disk does; it is a fake, for machines that let nobody mount."""

    room: int | None = None
    refuses = ""
    """Keys with this prefix are written to the full part of the disk."""
    read_only = False

    def put(self, key: str, data: bytes, *, durable: bool = False) -> None:
        self._take(key, data, "write")
        super().put(key, data, durable=durable)

    def append(self, key: str, data: bytes) -> None:
        self._take(key, data, "append to")
        super().append(key, data)

    def _take(self, key: str, data: bytes, verb: str) -> None:
        with storage_errors(verb, f"{self.url}/{key}"):
            if self.read_only:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            if self.room is not None and key.startswith(self.refuses):
                if len(data) > self.room:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self.room -= len(data)


class PretendedDisk:
    """A disk that is never really full: its store only raises the errors of a full disk."""

    def __init__(self, folder: Path) -> None:
        self.store = PretendingStore(folder)

    def resize(self, objects: int) -> None:
        self.store.room = objects * 1000

    def set_read_only(self, read_only: bool) -> None:
        self.store.read_only = read_only

    def close(self) -> None:
        pass


class MountedDisk:
    """A file system in memory, of a size that can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
        self.store = ObjectStore(folder)

    def resize(self, objects: int) -> None:
        mount("-o", f"remount,size={4 * objects}k", str(self.folder))

    def set_read_only(self, read_only: bool) -> None:
        mount("-o", "remount,ro" if read_only else "remount,rw", str(self.folder))

    def close(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def disks() -> list[type]:
    """The kinds of disks that this machine allows the tests to fill."""
    folder = Path(tempfile.mkdtemp())
    try:
        MountedDisk(folder / "disk").close()
    except (OSError, subprocess.CalledProcessError):
        return [PretendedDisk]
    finally:
        shutil.rmtree(folder)
    return [PretendedDisk, MountedDisk]


Disk = PretendedDisk | MountedDisk


@pytest.fixture(params=disks())
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    disk = request.param(tmp_path / "disk")
    yield disk
    disk.close()


@pytest.mark.parametrize("executor", [SerialExecutor(), ThreadExecutor(3)], ids=["serial", "threads"])
def test_a_full_disk_says_so_and_loses_nothing(disk: Disk, executor: Executor, tmp_path: Path) -> None:
    """A full disk ends the run with its remedy, and after making room only the missing chunks are computed."""
    stage = ToyStage(disk.store)
    disk.resize(objects=20)
    with pytest.raises(PetasegError, match="No space left on device") as caught:
        run(stage, executor)
    assert "free some space" in str(caught.value)
    assert "run the same command again" in str(caught.value)
    kept = done(stage)
    assert 5 < len(kept) < 48
    disk.resize(objects=1000)
    stage.forget_tries()
    summary = run(stage, executor)
    assert (summary.done, summary.failed) == (48, 0)
    assert set(stage.tried()) == {chunk.name for chunk in stage.chunks()} - kept
    assert stage.stored() == undisturbed(tmp_path / "other")


def test_a_disk_too_full_for_the_records_keeps_them_readable(tmp_path: Path) -> None:
    """Ledger records written before the disk was full stay readable, and the run then goes on from them."""
    store = PretendingStore(tmp_path / "disk")
    stage = ToyStage(store)
    store.refuses, store.room = "ledger/", 2000
    with pytest.raises(StorageError, match=r"cannot append to .*log\.jsonl: No space left on device; free some space"):
        run(stage)
    kept = done(stage)
    assert 5 < len(kept) < 48
    store.room = None
    assert run(stage).done == 48
    assert stage.stored() == undisturbed(tmp_path / "other")


@pytest.mark.parametrize("executor", [SerialExecutor(), ThreadExecutor(3)], ids=["serial", "threads"])
def test_a_disk_that_turns_read_only_says_so_and_loses_nothing(disk: Disk, executor: Executor, tmp_path: Path) -> None:
    """A run on a disk that has turned read-only says so and keeps its done chunks; it goes on after a remount."""
    broken = ToyStage(disk.store, faults={"1_2_0": "config"})
    with pytest.raises(StageFailed):
        run(broken, executor)
    stage = ToyStage(disk.store)
    disk.set_read_only(True)
    with pytest.raises(PetasegError, match="Read-only file system") as caught:
        run(stage, executor)
    assert COMMAND in str(caught.value)
    assert len(done(stage)) == 47
    disk.set_read_only(False)
    assert run(stage, executor).done == 48
    assert stage.stored() == undisturbed(tmp_path / "other")


def test_a_read_only_output_is_refused_before_anything_is_computed(disk: Disk) -> None:
    """A read-only output is refused before any chunk is computed."""
    stage = ToyStage(disk.store)
    disk.set_read_only(True)
    with pytest.raises(StorageError, match="Read-only file system; this file system is mounted read-only: choose"):
        run(stage)
    disk.set_read_only(False)
    assert stage.tried() == {}
    assert run(stage).done == 48


@contextmanager
def folder_without_rights() -> Iterator[Path]:
    """A folder that this process may read and not write; root becomes another user for it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_missing_rights_are_said_before_anything_is_computed() -> None:
    """A folder without the right to write is refused with the remedy, and nothing is written."""
    with folder_without_rights() as folder:
        stage = ToyStage(ObjectStore(folder / "run"))
        with pytest.raises(StorageError, match="Permission denied; give this user the right to read and write there"):
            run(stage)
        assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def workers() -> Iterator[DaskExecutor]:
    executor = DaskExecutor(workers=2)
    yield executor
    executor.close()


def test_dying_hanging_and_failing_chunks_cost_nobody_else_anything(workers: DaskExecutor, tmp_path: Path) -> None:
    """Three bad chunks are set aside with their causes, the others are done, and the next run computes those three."""
    faults = {"0_1_1": "kill", "1_2_0": "hang", "2_0_3": "fail"}
    stage = ToyStage(ObjectStore(tmp_path / "run"), faults=faults)
    with pytest.raises(StageFailed, match="3 of 48 chunks failed and were set aside; the others are done") as caught:
        run(stage, workers, attempts=2, timeout_seconds=1.0)
    assert all(part in str(caught.value) for part in (*faults, COMMAND))
    ledger = Ledger(stage.store, stage.name, stage.fingerprint, stage.grids(), read_only=True)
    errors = {failure.chunk_name: failure.error for failure in ledger.quarantined()}
    assert "worker died" in errors["0_1_1"]
    assert "no result after 1 seconds" in errors["1_2_0"]
    assert "cannot be computed" in errors["2_0_3"]
    mended = ToyStage(stage.store)
    mended.forget_tries()
    assert run(mended, workers).done == 48
    assert set(mended.tried()) == set(faults)
    assert mended.stored() == undisturbed(tmp_path / "other")


def test_faults_that_pass_leave_no_trace(workers: DaskExecutor, tmp_path: Path) -> None:
    """Chunks that kill a worker, hang or fail once succeed when retried, and the results are byte-identical."""
    faults = {"0_1_1": "kill", "1_2_0": "hang", "2_0_3": "fail"}
    stage = ToyStage(ObjectStore(tmp_path / "run"), faults=faults, times=1)
    summary = run(stage, workers, attempts=2, timeout_seconds=1.0)
    assert (summary.done, summary.failed) == (48, 0)
    assert stage.stored() == undisturbed(tmp_path / "other")
