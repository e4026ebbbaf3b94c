"""Settings of the random changes of training patches, as a training file lists them, and presets of them.

augmentation: pytc
augmentation: {preset: lee, warp: 0}
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline.config.base import Count, CountOrZero, Share, Table


class Augmentation(Table):
    """Random changes of the network's input; shares are probabilities for one patch."""

    flips: bool = True
    """Mirror each axis at random."""
    transpose: bool = True
    """Swap axes of equal voxel size at random."""
    rescale: Share = 0.3
    """Half of the patches are magnified or reduced by up to 1 + this, as if voxels had another size; 0: none."""
    rescale_in_plane: bool = False
    """Rescale y and x only, not z."""
    warp: Share = 0.0
    """The patch is rotated, sheared, stretched and twisted in the plane."""
    warp_degrees: Annotated[float, Field(ge=0, le=360)] = 15.0
    """The largest rotation, and the largest twist: the difference between first and last section."""
    warp_stretch: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The largest shear, and the largest stretch of each axis."""
    elastic: Share = 0.0
    """The patch is deformed smoothly, all sections alike."""
    elastic_voxels: Annotated[float, Field(ge=0, le=1000)] = 4.0
    """The largest standard deviation, in voxels, of the displacement of supports."""
    elastic_spacing: Annotated[int, Field(ge=2)] = 24
    """Voxels between supports."""
    misalignment: Share = 0.1
    """One section, or all beyond it, are shifted in their plane."""
    misalignment_voxels: Count = 3
    """The largest shift in voxels."""
    misalignment_slip: Share = 0.5
    """Share of misalignments that move one section and not those beyond it."""
    misalignment_rotation: Share = 0.0
    """Share of misalignments that rotate about the middle instead; no corner moves farther than the largest shift."""
    margin: CountOrZero = 0
    """Voxels in the plane that are read around a patch and cut off after moving it, so that its borders stay known."""
    contrast: Annotated[float, Field(ge=0, le=2)] = 0.45
    """Contrast is scaled by up to this, brightness moved by half of it, gamma is 2 to the power of up to twice this."""
    grey: Share = 0.0
    """The grey values of Lee et al. 2017: contrast 0.85 to 1.15, brightness -0.15 to 0.15, gamma 2^-1 to 2^1; the same
    for all sections, or new ones for each."""
    invert: Share = 0.0
    """White becomes black."""
    blur: Share = 0.3
    """Gaussian blur of up to 1.1 voxels."""
    noise: Share = 0.4
    """Gaussian noise with a standard deviation of up to 0.07."""
    shading: Share = 0.3
    """A slow change of brightness over the patch."""
    missing_sections: Share = 0.2
    """Sections are dimmed or lost."""
    missing_most: Count = 2
    """The most sections changed at a time."""
    missing_partial: Share = 0.0
    """Share of the missing sections that are lost in quarters only."""
    missing_parts: Share = 0.0
    """A band across some sections, never two in a row, has one grey: folds, cracks and dirt."""
    blurred_sections: Share = 0.0
    """Sections, or quarters of them, are out of focus."""
    blurred_most: Count = 10
    """The most sections changed at a time."""
    blurred_voxels: Annotated[float, Field(ge=0, le=1000)] = 5.0
    """The largest standard deviation of this Gaussian, in voxels."""
    motion_blur: Share = 0.0
    """Two sections are smeared along y or x."""
    motion_voxels: Count = 11
    """The length in voxels over which sections are smeared."""
    cut_blur: Share = 0.0
    """A box loses its resolution in the plane, by a factor of 2 to 8."""
    cut_noise: Share = 0.0
    """Add uniform noise of up to 0.3 to a box."""
    cut_size: Share = 0.4
    """Sides of the boxes of ``cut_blur`` and ``cut_noise``, as a share of the patch's sides."""
    mixup: Share = 0.0
    """Another patch shines through with 0.1 to 0.3; labels stay."""
    copy_paste: Share = 0.0
    """An object of another patch is put over this one, with its label: for sparse objects such as mitochondria."""

    @property
    def keys_said(self) -> set[str]:
        """See ``Table``: without those that a preset has set."""
        said = self.model_fields_set
        presets = [preset for preset in PRESETS.values() if set(preset) <= said]
        return {key for key in said if all(preset.get(key) != getattr(self, key) for preset in presets)}

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, given: Any) -> Any:
        """Replace a preset's name by its settings; the other keys of a table with ``preset`` override them."""
        name = given if isinstance(given, str) else given.get("preset") if isinstance(given, dict) else None
        if name is None:
            return given
        if name not in PRESETS:
            raise ValueError(f"{name!r} is no preset; there are {', '.join(PRESETS)}")
        rest = {} if isinstance(given, str) else {key: value for key, value in given.items() if key != "preset"}
        return {**PRESETS[name], **rest}


_NOTHING: dict[str, Any] = {
    **{"rescale": 0.0, "misalignment": 0.0, "contrast": 0.0, "blur": 0.0, "noise": 0.0, "shading": 0.0},
    "missing_sections": 0.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "none": {**_NOTHING, "flips": False, "transpose": False},
    "flips": _NOTHING,
    "lee": {
        **_NOTHING,
        **{"misalignment": 0.7, "misalignment_voxels": 17, "misalignment_slip": 0.3, "margin": 17},
        **{"warp": 0.7, "grey": 0.7},
        **{"missing_sections": 0.7, "missing_most": 10, "missing_partial": 0.5},
        "blurred_sections": 0.7,
    },
    "pytc": {
        **_NOTHING,
        **{"rescale": 0.25, "rescale_in_plane": True, "elastic": 0.75, "elastic_voxels": 4.0, "elastic_spacing": 16},
        **{"misalignment": 0.5, "misalignment_voxels": 16, "misalignment_rotation": 0.5, "margin": 16},
        **{"grey": 0.75, "missing_parts": 0.9, "missing_sections": 0.5, "motion_blur": 0.5},
        **{"cut_blur": 0.5, "cut_noise": 0.75},
    },
}
"""Name -> the settings that differ from the defaults.

none   patches stay as they are
flips  only flips and exchanged axes
lee    Lee et al. 2017, after its published code: every change is skipped for 30 % of the patches
pytc   PyTorch Connectomics (Lin et al. 2021)
"""
