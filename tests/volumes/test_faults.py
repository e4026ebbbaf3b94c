"""A reader sees a chunk as before or after a write that was killed, and errors of a disk say what to do."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import CorruptError
from pipeline.geometry import BoundingBox
from pipeline.volumes import VolumeSpec, create_volume, open_volume

SPEC = VolumeSpec(BoundingBox.from_shape((64, 64, 64)), (8.0, 8.0, 8.0), np.dtype("float32"), None, (64, 64, 64))
WRITER = """
import sys
import numpy as np
from pipeline.errors import StorageError
from pipeline.volumes import open_volume
volume = open_volume(sys.argv[1], mode="r+")
noise = np.random.default_rng(0).normal(size=(64, 64, 64)).astype("float32")
{body}
"""
FOR_EVER = """
print("ready", flush=True)
sign = 1
while True:
    sign = -sign
    volume.write(volume.spec.bounds, sign * noise)
"""
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    volume.write(volume.spec.bounds, noise)
except StorageError as error:
    print(error)
"""
NOISE = np.random.default_rng(0).normal(size=(64, 64, 64)).astype("float32")


@pytest.fixture(params=["zarr", "precomputed"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"{request.param}://{tmp_path / 'volume'}"
    create_volume(url, SPEC).write(SPEC.bounds, NOISE)
    return url


def test_kill_9_leaves_the_chunk_before_or_after_the_write(url: str) -> None:
    """After kill -9 of a writer, a chunk holds either all of the old data or all of the new data."""
    command = [sys.executable, "-c", WRITER.format(body=FOR_EVER), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(0.08)
        process.send_signal(signal.SIGKILL)
    found = open_volume(url).read(SPEC.bounds)
    assert (found == NOISE).all() or (found == -NOISE).all()


def test_a_refused_write_says_why_and_changes_nothing(url: str, tmp_path: Path) -> None:
    before = sorted(p.name for p in tmp_path.rglob("*"))
    command = [sys.executable, "-c", WRITER.format(body=LIMITED), url]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "File too large; this file system or a limit" in run.stdout
    assert str(tmp_path) in run.stdout
    assert (open_volume(url).read(SPEC.bounds) == NOISE).all()
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_damage_is_found_when_a_part_of_the_chunk_is_overwritten(tmp_path: Path) -> None:
    """A write of a part of a chunk reads the old chunk first, and fails instead of replacing damage by zeros."""
    volume = create_volume(str(tmp_path / "v"), SPEC)
    volume.write(SPEC.bounds, NOISE)
    (tmp_path / "v/0/c/0/0/0").write_bytes(b"rubbish")
    with pytest.raises(CorruptError, match="compute or copy that part again"):
        volume.write(BoundingBox((0, 0, 0), (1, 1, 1)), np.ones((1, 1, 1), "float32"))
