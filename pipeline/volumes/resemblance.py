"""Volumes that look like something else than they are given as: an image as labels, labels as an image.

Neighbours along x are compared in a sample of blocks. In labels nearly all are equal, 77 to 97 percent in published
ones; in an image of a microscope, with its noise, few are, 2 to 5 percent. What has only a few values, or one value
nearly everywhere, looks like neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import VolumeError
from pipeline.volumes.base import Volume
from pipeline.volumes.location import parse_location
from pipeline.volumes.sample import few_blocks
from pipeline.volumes.scaled import says_scale

PAIRS = 1000
"""Neighbours that must be compared for an opinion."""
IMAGE_VALUES, IMAGE_EQUAL = 32, 1 / 3
"""An image has at least so many values, and a smaller share of equal neighbours."""
LABELS_VALUES, LABELS_EQUAL = 4, 0.75
"""Labels have at least so many values, and a larger share of equal neighbours."""


@dataclass(frozen=True)
class Look:
    """What a sample shows; the two most frequent values, such as padding, are left out where they meet themselves."""

    values: int
    """Different values."""
    pairs: int
    """Neighbours that were compared."""
    equal: float
    """The share of equal ones."""


def look_at(volume: Volume) -> Look:
    """Compare neighbours along x in a few blocks of a volume of integers."""
    blocks = list(few_blocks(volume))
    values, counts = np.unique(np.concatenate([block.ravel() for block in blocks]), return_counts=True)
    frequent = values[np.argsort(counts)[-2:]]
    pairs = equal = 0
    for block in blocks:
        left, right = block[..., :-1], block[..., 1:]
        same = left == right
        known = same & np.isin(left, frequent)
        pairs += same.size - int(known.sum())
        equal += int(same.sum()) - int(known.sum())
    return Look(len(values), pairs, equal / max(1, pairs))


def refuse_image_as_labels(volume: Volume) -> None:
    """Raise ``VolumeError`` for labels of at most 16 bits that look like the image of a microscope."""
    if volume.dtype.itemsize > 2:
        return
    look = look_at(volume)
    if look.pairs >= PAIRS and look.values >= IMAGE_VALUES and look.equal < IMAGE_EQUAL:
        raise VolumeError(
            f"{volume.url} looks like an image, and labels are needed: {look.equal:.0%} of neighbours along x are "
            f"equal in a sample of {look.values} values of {volume.dtype}, and in labels nearly all are. Name the "
            "labels; if these are labels after all, store them as uint32"
        )


def refuse_labels_as_image(volume: Volume) -> None:
    """Raise ``VolumeError`` for an image that looks like labels, unless ``#scale=`` says what its values are."""
    if says_scale(parse_location(volume.url)):
        return
    look = look_at(volume)
    if look.pairs >= PAIRS and look.values >= LABELS_VALUES and look.equal > LABELS_EQUAL:
        raise VolumeError(
            f"{volume.url} looks like labels, and an image is needed: {look.equal:.0%} of neighbours along x are equal "
            f"in a sample of {look.values} values, and in an image of a microscope few are. Name the image; if this is "
            "one after all, say so by adding #scale=255"
        )
