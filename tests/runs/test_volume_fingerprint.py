"""The fingerprint of an input notices other voxels, another extent and another unit."""

import numpy as np

from pipeline.runs.origin import volume_fingerprint
from pipeline.volumes import open_volume
from tests.runs import write_volume

IMAGE = np.random.default_rng(0).integers(0, 256, (5, 6, 7), np.uint8)


def fingerprint_of(path, array=IMAGE, **options):
    return volume_fingerprint(open_volume(write_volume(path, array, **options)))


def test_a_copy_has_the_same_fingerprint(tmp_path):
    assert fingerprint_of(tmp_path / "here.zarr") == fingerprint_of(tmp_path / "there.zarr")


def test_another_voxel_is_another_fingerprint(tmp_path):
    other = IMAGE.copy()
    other[2, 3, 4] ^= 1
    assert fingerprint_of(tmp_path / "a.zarr") != fingerprint_of(tmp_path / "b.zarr", other)


def test_another_place_unit_or_type_is_another_fingerprint(tmp_path):
    changes = [{"start": (0, 0, 1)}, {"resolution_nm": (8, 8, 9)}, {"array": IMAGE.view(np.int8)}]
    found = {fingerprint_of(tmp_path / f"{n}.zarr", **change) for n, change in enumerate([{}, *changes])}
    assert len(found) == 4
