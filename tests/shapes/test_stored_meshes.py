"""A mesh is read back out of a shard at the level of detail that was asked for."""

import numpy as np
import pytest

from pipeline.geometry import Vec
from pipeline.shapes.stored_meshes import StoredMeshes
from tests.shapes.meshed import NM, Meshed


def ball(side: int, label: int) -> np.ndarray:
    middle = (np.indices((side,) * 3) - (side - 1) / 2) ** 2
    return (middle.sum(0) < (0.4 * side) ** 2).astype(np.uint64) * np.uint64(label)


@pytest.fixture(scope="module")
def meshed(tmp_path_factory: pytest.TempPathFactory) -> Meshed:
    labels = np.concatenate([ball(70, 5), ball(70, 2**63 + 9)], axis=2)
    return Meshed(tmp_path_factory.mktemp("meshed"), labels, Vec(64, 64, 64)).run()


def stored(meshed: Meshed) -> StoredMeshes:
    return StoredMeshes(lambda name: meshed.files()[name], meshed.extract.sharding)


@pytest.mark.parametrize("segment", [5, 2**63 + 9])
@pytest.mark.parametrize(("lod", "most_bytes"), [(0, 10**9), (1, 0)])
def test_the_mesh_is_that_of_cloud_volume(meshed: Meshed, segment: int, lod: int, most_bytes: int) -> None:
    """Triangles and places are those that cloud-volume decodes; the coarsest level is taken if all are too large."""
    mesh = stored(meshed).read(segment, most_bytes)
    assert mesh is not None
    vertices, faces = meshed.mesh(segment, lod)
    assert len(mesh.faces) == len(faces)
    found = mesh.vertices[:, ::-1] * NM[::-1]
    assert np.abs(np.sort(found, axis=0) - np.sort(vertices, axis=0)).max() < 0.01


def test_an_id_without_mesh_is_none(meshed: Meshed) -> None:
    """A shard that does not hold the id says so."""
    assert stored(meshed).read(6, 10**9) is None
