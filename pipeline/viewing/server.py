"""Layers over HTTP, on this machine alone.

    /<secret>/<layer>/info                      the info file of a volume
    /<secret>/<layer>/<level>/<x_y_z>           the voxels of a chunk
    /<secret>/<layer>/properties/info           what is known of the segments
    /<secret>/<layer>/<folder>/...              files of a folder that belongs to the layer, such as its meshes

Only the volumes and folders that were named are served; a path never leaves its folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from pipeline.storage import ObjectStore
from pipeline.viewing.loopback import LoopbackServer, answering
from pipeline.viewing.served import ServedVolume, box_of

NAME = re.compile(r"[\w.-]+(/[\w.:-]+)*", re.ASCII)


@dataclass(frozen=True)
class ServedLayer:
    """What belongs to one layer."""

    volume: ServedVolume
    properties: Mapping[str, Any] | None = None
    """Segment properties, as Neuroglancer takes them."""
    folders: Mapping[str, ObjectStore] = field(default_factory=dict)
    """Folders of files by what the info file calls them, such as ``mesh``."""

    def info(self) -> dict[str, Any]:
        """The info file, which also says where shapes and properties are."""
        more = {} if self.properties is None else {"segment_properties": "properties"}
        return {**self.volume.info(), **{name: name for name in self.folders}, **more}

    def find(self, path: str) -> tuple[bytes, str]:
        """The content under a path of this layer, and its type.

        Raises ``KeyError``, ``ValueError`` or ``IndexError`` for a path that names nothing, ``PetasegError`` where
        the volume cannot be read.
        """
        if path == "info":
            return json.dumps(self.info()).encode(), "application/json"
        if path == "properties/info" and self.properties is not None:
            return json.dumps(self.properties).encode(), "application/json"
        first, _, rest = path.partition("/")
        if first in self.folders:
            return _file(self.folders[first], rest), "application/octet-stream"
        return self.volume.chunk(int(first), box_of(rest)), "application/octet-stream"


def _file(store: ObjectStore, key: str) -> bytes:
    if not NAME.fullmatch(key) or ".." in key.split("/"):
        raise KeyError(key)
    data = store.get_or_none(key)
    if data is None:
        raise KeyError(key)
    return data


def serving(layers: Mapping[str, ServedLayer], port: int = 0) -> AbstractContextManager[LoopbackServer]:
    """Serve layers by their names while the block runs; ``ConfigError`` if the port is taken."""

    def find(path: str) -> tuple[bytes, str]:
        layer, _, rest = path.partition("/")
        return layers[layer].find(rest)

    return answering(find, port)
