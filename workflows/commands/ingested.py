"""What can be done next with a volume that ``petaseg ingest`` has written."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.volumes.base import VolumeSpec


def next_steps(url: str, spec: VolumeSpec) -> list[str]:
    """What can be done next with a volume: by its type and channels it is an image, affinities or labels.

    A volume of uint8 without channels may be a mask too; such lines begin with their purpose.
    """
    place = shlex.quote(url)
    if (spec.channels or 1) >= 3 and (spec.dtype == "uint8" or spec.dtype.kind == "f"):
        return [
            f"next, if these are affinities: petaseg init run.yaml --affinities {place}",
            *(_for_colours(url) if spec.dtype == "uint8" and spec.channels == 3 else []),
        ]
    if spec.channels not in (None, 1):
        one = shlex.quote(f"{url}#channel=0")
        return [f"no run reads {spec.channels} channels: take one of them ({one}), or affinities of z, y and x"]
    if spec.dtype == "uint8":
        return [f"next: petaseg init run.yaml --image {place}"]
    if spec.dtype.kind == "f" or spec.dtype in ("uint16", "int16"):
        return [
            f"next, if this is an image: petaseg ingest {place} image.zarr --to uint8   (a run reads uint8)",
            *(_for_labels(place) if spec.dtype.kind in "ui" else []),
        ]
    return _for_labels(place)


def _for_colours(url: str) -> list[str]:
    """What can be done with red, green and blue."""
    return [
        f"or, if these are colours: petaseg init run.yaml --model MODEL --image {shlex.quote(url)}   (in_channels: 3)",
        f"or, to use the green alone: petaseg init run.yaml --image {shlex.quote(f'{url}#channel=1')}",
    ]


def _for_labels(place: str) -> list[str]:
    """Commands for labels."""
    return [
        f"next, to train on these labels: petaseg init train.yaml --image IMAGE --labels {place}",
        f"or to score with them: petaseg run run.yaml --set evaluation.labels={place}",
        f"or to score them: petaseg evaluate TRUTH {place}",
    ]
