"""Volumes are read from a web server, also from one that cannot send parts of files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes import VolumeSpec, create_volume, open_volume
from tests.objectstore.web import web_server

SPEC = VolumeSpec(BoundingBox((3, -4, 5), (35, 28, 37)), (50.0, 4.6, 4.6), np.dtype("uint64"), None, (8, 8, 8))
DATA = np.random.default_rng(0).integers(0, 99, SPEC.bounds.shape, "uint64")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with web_server(tmp_path) as address:
        yield address


@pytest.mark.parametrize(("kind", "shard"), [("zarr", None), ("zarr", (16, 16, 16)), ("precomputed", None)])
def test_a_volume_behind_a_web_server_is_read(
    address: str, tmp_path: Path, kind: str, shard: tuple[int, int, int] | None
) -> None:
    spec = VolumeSpec(SPEC.bounds, SPEC.resolution_nm, SPEC.dtype, None, SPEC.storage_chunk, shard)
    create_volume(f"{kind}://{tmp_path}/v", spec).write(spec.bounds, DATA)
    volume = open_volume(f"{address}/v")
    assert volume.spec == spec
    box = BoundingBox((9, 0, 6), (30, 20, 30))
    assert (volume.read(box) == DATA[box.slices(spec.bounds.start)]).all()


def test_nothing_behind_a_web_server_is_named(address: str) -> None:
    with pytest.raises(VolumeError, match="nothing does not exist"):
        open_volume(f"{address}/nothing")
