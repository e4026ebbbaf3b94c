"""A labelled volume with its meshes, as the two stages of meshes make them, and what holds of closed surfaces."""

import random

import numpy as np
from cloudvolume import CloudVolume

from pipeline.geometry import BoundingBox, Vec
from pipeline.segmentation.pyramid import majority
from pipeline.shapes.lattice import DetailLevel, MeshLattice
from pipeline.stages.extract_meshes import ExtractMeshes
from pipeline.stages.layout import Layout
from pipeline.stages.write_meshes import WriteMeshes
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import VolumeSpec

NM = (8.0, 8.0, 8.0)
START = Vec(3, 5, 71)
"""Where the datasets of these tests begin: on no block, and not at 0."""


class Meshed:
    """The run directory of a labelled volume, and its two stages."""

    def __init__(self, folder, labels, chunk, *, levels=2, smallest=1, start=START):
        self.folder, self.labels, self.start = folder, labels, start
        bounds = BoundingBox.from_shape(labels.shape, start)
        storage = Vec(*chunk).minimum(32)
        self.layout = Layout(str(folder), bounds, bounds, Vec(*chunk), storage, NM)
        self.voxels = []
        """The labels of each level."""
        stored = [self._store(number) for number in range(levels)]
        lattice = MeshLattice(bounds, tuple(level for level, _ in stored))
        self.extract = ExtractMeshes(self.layout, smallest, lattice, tuple(url for _, url in stored), "labels")
        self.write = WriteMeshes(self.layout, self.extract)

    def _store(self, number):
        labels, start, factor = self.labels, self.start, 1 << number
        for _ in range(number):
            labels, start = majority(labels, Vec(2, 2, 2), start), start // 2
        self.voxels.append(labels)
        side = NM[0] * factor
        spec = VolumeSpec(BoundingBox.from_shape(labels.shape, start), (side,) * 3, labels.dtype)
        url = f"{self.folder}/level{number}.zarr"
        create_volume(url, spec)
        open_volume(url, mode="r+").write(spec.bounds, labels)
        return DetailLevel(number, Vec(factor, factor, factor), spec.bounds, spec.resolution_nm), url

    def run(self, *, twice=0):
        """Compute all chunks in any order, ``twice`` of them again, and then all shards."""
        chunks = list(self.extract.grids()[0])
        random.Random(0).shuffle(chunks)
        for chunk in [*chunks, *chunks[:twice]]:
            self.extract.run_chunk(chunk)
        for shard in self.write.grids()[0]:
            self.write.run_chunk(shard)
        self.write.publish()
        return self

    def files(self):
        """All files of the meshes: name -> bytes."""
        return {path.name: path.read_bytes() for path in sorted((self.folder / "meshes").iterdir())}

    def open(self):
        """The meshes as cloud-volume sees them, beside a segmentation that names their folder."""
        size = self.labels.shape[::-1]
        info = CloudVolume.create_new_info(
            1, "segmentation", "uint64", "raw", NM[::-1], self.start[::-1], size, mesh="meshes"
        )
        volume = CloudVolume(f"file://{self.folder}", info=info, progress=False)
        volume.commit_info()
        return CloudVolume(f"file://{self.folder}", progress=False, cache=False).mesh

    def mesh(self, segment, lod=0):
        """Vertices in nanometres (n, 3), x, y, z, and triangles (m, 3), as cloud-volume decodes them."""
        found = self.open().get(segment, lod=lod)[segment]
        return np.asarray(found.vertices, np.float64), np.asarray(found.faces, np.int64)


def joined(vertices, faces):
    """The triangles after equal vertices became one; those with two equal ones are dropped."""
    _, place = np.unique(vertices, axis=0, return_inverse=True)
    faces = place.reshape(-1)[faces]
    return faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]


def edges(faces):
    """All directed edges."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def is_watertight(vertices, faces):
    """True if every edge has exactly two triangles, which run through it in opposite directions."""
    directed, counts = np.unique(edges(joined(vertices, faces)), axis=0, return_counts=True)
    both = {tuple(edge) for edge in directed.tolist()}
    return bool((counts == 1).all()) and all((b, a) in both for a, b in both)


def volume(vertices, faces):
    """The enclosed volume; positive if the triangles turn outward."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def sphere(shape, centre, radius):
    """Whether each voxel is in a sphere."""
    places = np.indices(shape).transpose(1, 2, 3, 0) - np.asarray(centre)
    return (places**2).sum(-1) < radius**2


def tube(shape, start, stop, radius):
    """Whether each voxel is in a tube between two points."""
    places = np.indices(shape).transpose(1, 2, 3, 0) - np.asarray(start, float)
    way = np.subtract(stop, start).astype(float)
    along = np.clip(places @ way / (way @ way), 0, 1)
    return ((places - along[..., None] * way) ** 2).sum(-1) < radius**2
