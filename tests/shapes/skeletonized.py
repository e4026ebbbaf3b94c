"""A labelled volume with its skeletons, as the two stages of skeletons make them."""

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
from cloudvolume import CloudVolume

from pipeline.geometry import BoundingBox, Vec
from pipeline.segmentation.skeletons.rules import SkeletonRules
from pipeline.shapes.measure_tables import read_table
from pipeline.shapes.shards import bytes_of
from pipeline.shapes.skeleton_files import decode
from pipeline.stages.extract_skeletons import ExtractSkeletons, lattice_of
from pipeline.stages.layout import Layout
from pipeline.stages.write_skeletons import WriteSkeletons
from pipeline.volumes import create_volume
from pipeline.volumes.base import VolumeSpec

START = Vec(3, 5, 71)
"""Where the datasets of these tests begin: on no block, and not at 0."""
RULES = SkeletonRules(1.5, 150.0)


class Skeletonized:
    """The run directory of a labelled volume, and its two stages; blocks are small."""

    def __init__(self, folder, labels, chunk, *, nm=(32.0, 32.0, 32.0), smallest=1, voxel_nm=0.0, block=32, roi=None):
        self.folder, self.nm = folder, nm
        bounds = BoundingBox.from_shape(labels.shape, START)
        self.layout = Layout(str(folder), bounds, roi or bounds, Vec(*chunk), Vec(*chunk).minimum(32), nm)
        spec = VolumeSpec(bounds, nm, labels.dtype)
        create_volume(self.layout.volume_url("labels"), spec).write(bounds, labels)
        lattice, steps = lattice_of(self.layout, voxel_nm)
        lattice = replace(lattice, block=block)
        self.extract = ExtractSkeletons(self.layout, smallest, lattice, steps, RULES, "labels", "labels of a test")
        self.write = WriteSkeletons(self.layout, self.extract)

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
        """All files of the skeletons: name -> bytes."""
        paths = [*(self.folder / "skeletons").iterdir(), self.folder / "tables" / "skeletons.parquet"]
        return {path.name: path.read_bytes() for path in sorted(paths)}

    def skeleton(self, segment):
        """The skeleton of a segment, or None."""
        shard = (self.folder / "skeletons" / "0.shard").read_bytes()
        found = bytes_of(shard, segment)
        return None if found is None else decode(shard[found.start : found.stop])

    def table(self):
        """The columns of the table."""
        return read_table((self.folder / "tables" / "skeletons.parquet").read_bytes())

    def open(self):
        """The skeletons as cloud-volume sees them, beside a segmentation that names their folder."""
        info = CloudVolume.create_new_info(
            1, "segmentation", "uint64", "raw", self.nm[::-1], START[::-1], (64, 64, 64), skeletons="skeletons"
        )
        CloudVolume(f"file://{self.folder}", info=info, progress=False).commit_info()
        return CloudVolume(f"file://{self.folder}", progress=False, cache=False).skeleton


def tube(shape, start, stop, radius_nm, nm):
    """Whether each voxel is in a tube around a line between two voxels."""
    return tubes(shape, (start, stop), radius_nm, nm)


def tubes(shape, corners, radius_nm, nm):
    """Whether each voxel is in a tube around lines from corner to corner."""
    found = np.zeros(shape, bool)
    for start, stop in pairwise(corners):
        places = (np.indices(shape).transpose(1, 2, 3, 0) - np.asarray(start, float)) * nm
        way = np.subtract(stop, start) * np.asarray(nm)
        along = np.clip(places @ way / (way @ way), 0, 1)
        found |= ((places - along[..., None] * way) ** 2).sum(-1) < radius_nm**2
    return found


def torus(shape, centre, radius, thickness):
    """Whether each voxel is in a ring around the z axis, in voxels."""
    z, y, x = (np.indices(shape).transpose(1, 2, 3, 0) - np.asarray(centre, float)).transpose(3, 0, 1, 2)
    return (np.sqrt(y**2 + x**2) - radius) ** 2 + z**2 < thickness**2
