"""What an image must be to be given to a network: the same for a run and for a training."""

from __future__ import annotations

import shlex

import numpy as np

from pipeline.errors import VolumeError, counted
from pipeline.volumes.base import Volume
from pipeline.volumes.resemblance import refuse_labels_as_image


def check_image(volume: Volume, channels: int, network: str) -> None:
    """Raise ``VolumeError`` unless an image holds uint8, in as many channels as the network takes, and does not look
    like labels.

    network: its name, for the message.
    """
    spec = volume.spec
    if spec.dtype != np.uint8:
        raise VolumeError(
            f"{volume.url} holds {spec.dtype}; an image must be uint8: convert it once with `petaseg ingest "
            f"{shlex.quote(volume.url)} image.zarr --to uint8 --percentiles 0.1,99.9`, and name image.zarr"
        )
    if (found := spec.channels or 1) != channels:
        raise VolumeError(
            f"{volume.url} has {counted(found, 'channel')}; {network} takes images of {channels}: "
            f"{_remedy(found, channels)}"
        )
    refuse_labels_as_image(volume)


def _remedy(found: int, channels: int) -> str:
    """How an image of other channels becomes one that fits."""
    if channels == 1:
        return f"take one of them by adding #channel=0, or a network with in_channels {found}"
    if found == 1:
        return "name an image in colours (docs/volumes.md), or take a network with in_channels 1"
    return f"bring an image of {channels}, or take a network with in_channels {found}"
