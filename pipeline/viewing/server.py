"""A server of layers on this machine alone: the loopback address, and paths that begin with a secret.

    /<secret>/<layer>/info                      the info file of a volume
    /<secret>/<layer>/<level>/<x_y_z>           the voxels of a chunk
    /<secret>/<layer>/properties/info           what is known of the segments
    /<secret>/<layer>/<folder>/...              files of a folder that belongs to the layer, such as its meshes

Pages of other origins may read it, as Neuroglancer's client does, but none can guess the secret. Only the volumes and
folders that were named are served; a path never leaves its folder.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.errors import ConfigError, PetasegError
from pipeline.storage import ObjectStore
from pipeline.viewing.served import ServedVolume, box_of

HOST = "127.0.0.1"
RANGE = re.compile(r"bytes=(\d+)-(\d+)", re.ASCII)
NAME = re.compile(r"[\w.-]+(/[\w.:-]+)*", re.ASCII)


@dataclass(frozen=True)
class ServedLayer:
    """What belongs to one layer."""

    volume: ServedVolume
    properties: Mapping[str, Any] | None = None
    """Segment properties, as Neuroglancer takes them."""
    folders: Mapping[str, ObjectStore] = field(default_factory=dict)
    """Folders of files by the name under which they are served."""

    def info(self) -> dict[str, Any]:
        """The info file, which also says where the properties are."""
        more = {} if self.properties is None else {"segment_properties": "properties"}
        return {**self.volume.info(), **more}

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


class LayerServer(ThreadingHTTPServer):
    """Serves layers until it is closed; each request has a thread of its own."""

    daemon_threads = True

    def __init__(self, layers: Mapping[str, ServedLayer], port: int = 0) -> None:
        self.layers = layers
        self.secret = secrets.token_urlsafe(16)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be used ({error.strerror or error}); give another one, or 0 for any free port"
            ) from error

    @property
    def url(self) -> str:
        """The address under which each layer is found by its name."""
        return f"http://{HOST}:{self.server_address[1]}/{self.secret}"


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: LayerServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The content of a path; 404 for one that names nothing, 500 with the reason where it cannot be read."""
        try:
            _, secret, layer, path = self.path.split("?")[0].split("/", 3)
            if not secrets.compare_digest(secret, self.server.secret):
                raise KeyError(secret)
            content, kind = self.server.layers[layer].find(path)
        except (KeyError, ValueError, IndexError, ConfigError):
            self._answer(404, b"nothing here", "text/plain")
        except PetasegError as error:
            self._answer(500, str(error).encode(), "text/plain")
        else:
            self._answer_part(content, kind)

    def do_OPTIONS(self) -> None:
        """What a page of another origin may ask."""
        self._answer(204, b"", "text/plain")

    def _answer_part(self, content: bytes, kind: str) -> None:
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None:
            return self._answer(200, content, kind)
        first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
        if first > last:
            return self._answer(416, b"", kind, f"bytes */{len(content)}")
        return self._answer(206, content[first : last + 1], kind, f"bytes {first}-{last}/{len(content)}")

    def _answer(self, status: int, content: bytes, kind: str, part: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "Range, If-Match, If-None-Match")
        self.send_header("Access-Control-Expose-Headers", "Content-Range")
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed for a request."""


@contextmanager
def serving(layers: Mapping[str, ServedLayer], port: int = 0) -> Iterator[LayerServer]:
    """Serve layers while the block runs; ``ConfigError`` if the port is taken."""
    server = LayerServer(layers, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
