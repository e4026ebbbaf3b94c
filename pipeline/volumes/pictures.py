"""PNG and JPEG images, read-only: a folder with one file for each section in the order of their numbers, or one file.

The URL gives the voxel size: ``stack/#resolution=50,4.6,4.6``. A box is read section by section, each decoded whole.
"""

from __future__ import annotations

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.location import Location
from pipeline.volumes.picture_files import Picture, look_at
from pipeline.volumes.placement import Stated, placement, refuse_writing
from pipeline.volumes.stacks import common_kind, files_of


class PictureVolume(CheckedVolume):
    """Sections of equal shape and type, stacked along z; colours are three channels."""

    def __init__(self, url: str, spec: VolumeSpec, sections: list[Picture]) -> None:
        super().__init__(url, spec)
        self._sections = sections

    @classmethod
    def open(cls, location: Location, mode: Mode) -> PictureVolume:
        """Look at every file's header; refuse mixed shapes and types, and missing numbers."""
        refuse_writing(location, mode)
        sections = [look_at(path) for path in files_of(location, "pictures")]
        kind = common_kind(location.url, [(section.path.name, section.kind) for section in sections])
        resolution, bounds = placement(location, Stated(), Vec(len(sections), *kind.shape))
        return cls(location.url, VolumeSpec(bounds, resolution, kind.dtype, kind.channels), sections)

    def _load(self, box: BoundingBox) -> np.ndarray:
        result = np.empty(self.spec.array_shape(box), self.spec.dtype)
        sections, rows, columns = box.slices(self.spec.bounds.start)
        for place, section in enumerate(self._sections[sections]):
            result[..., place, :, :] = section.pixels()[..., rows, columns]
        return result
