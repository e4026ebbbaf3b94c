"""An HTTP server on this machine alone: the loopback address, and paths that begin with a secret.

Pages of other origins may read it, as Neuroglancer's client does, but none can guess the secret.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.errors import ConfigError, PetasegError

HOST = "127.0.0.1"
RANGE = re.compile(r"bytes=(\d+)-(\d+)", re.ASCII)
Find = Callable[[str], tuple[bytes, str]]
"""The content under a path, which has no secret, and its type; ``LookupError``, ``ValueError`` or ``ConfigError`` for
a path that names nothing, another ``PetasegError`` for what cannot be read."""


class LoopbackServer(ThreadingHTTPServer):
    """Answers until it is closed; each request has a thread of its own."""

    daemon_threads = True

    def __init__(self, find: Find, port: int = 0) -> None:
        self.find = find
        self.secret = secrets.token_urlsafe(16)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be used ({error.strerror or error}); give another one, or 0 for any free port"
            ) from error

    @property
    def url(self) -> str:
        """The address in front of every path."""
        return f"http://{HOST}:{self.server_address[1]}/{self.secret}"


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: LoopbackServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The content of a path; 404 for one that names nothing, 500 with the reason where it cannot be read."""
        try:
            _, secret, path = self.path.split("?")[0].split("/", 2)
            if not secrets.compare_digest(secret.encode(), self.server.secret.encode()):
                raise KeyError(secret)
            content, kind = self.server.find(path)
        except (LookupError, ValueError, ConfigError):
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
def answering(find: Find, port: int = 0) -> Iterator[LoopbackServer]:
    """Answer requests while the block runs; ``ConfigError`` if the port is taken."""
    server = LoopbackServer(find, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
