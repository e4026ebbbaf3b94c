"""An imitation, in memory, of the part of Google's storage that petaseg uses: objects with generations.

It shows that petaseg speaks the protocol as Google documents it; it does not show that Google's servers agree.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bucket"
DATE = "Fri, 20 Nov 2026 10:00:00 GMT"


@dataclass
class Stored:
    """An object with its generation and headers."""

    data: bytes
    headers: dict[str, str]
    generation: int


class GoogleServer(ThreadingHTTPServer):
    """A server that holds one bucket."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, Stored] = {}
        self.generation = 1000
        self.lock = threading.Lock()

    def key_file(self, path: Path) -> Path:
        """Write the key file of a service account that leads to this server; returns its path."""
        server = f"http://127.0.0.1:{self.server_address[1]}"
        known = {"gcs_base_url": server, "disable_oauth": True, "project_id": "project"}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**known, "client_email": "", "private_key": "", "private_key_id": ""}))
        return path


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # without this each answer waits 40 ms for an acknowledgement
    server: GoogleServer

    def handle_request(self) -> None:
        """Answer one request."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path.lstrip("/")).partition("/")
        with self.server.lock:
            if bucket != BUCKET:
                return self.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
            if not key:
                return self.answer(200, self.listing(parse_qs(url.query).get("prefix", [""])[0]))
            found = self.server.objects.get(key)
            if self.command == "PUT":
                return self.store(key, found, body)
            if found is None:
                return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            if self.command == "DELETE":
                del self.server.objects[key]
                return self.answer(204, b"")
            return self.send(found)

    do_GET = do_PUT = do_HEAD = do_DELETE = handle_request  # noqa: N815  (names of http.server)

    def store(self, key: str, found: Stored | None, body: bytes) -> None:
        """Store an object if its generation is the one that the request names; 0 stands for no object."""
        wanted = self.headers.get("x-goog-if-generation-match")
        if wanted is not None and int(wanted) != (found.generation if found else 0):
            return self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        self.server.generation += 1
        kept = ("x-goog-meta-", "content-encoding", "content-type", "cache-control")
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower().startswith(kept)}
        self.server.objects[key] = Stored(body, headers, self.server.generation)
        return self.answer(200, b"", marks(self.server.objects[key]))

    def send(self, found: Stored) -> None:
        """Send an object or a range; compressed objects are unpacked for clients that do not accept gzip."""
        headers = {**found.headers, **marks(found), "Last-Modified": DATE}
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if headers.get("content-encoding") == "gzip" and "gzip" not in self.headers.get("Accept-Encoding", ""):
            del headers["content-encoding"]
            return self.answer(200, gzip.decompress(found.data), headers, length=False)
        if span is None:
            return self.answer(200, found.data, headers)
        size = len(found.data)
        first = int(span[1]) if span[1] else max(0, size - int(span[2]))
        last = min(size, int(span[2]) + 1) if span[1] and span[2] else size
        if first >= size:
            return self.answer(416, b"<Error><Code>InvalidRange</Code></Error>")
        headers["Content-Range"] = f"bytes {first}-{last - 1}/{size}"
        return self.answer(206, found.data[first:last], headers)

    def listing(self, prefix: str) -> bytes:
        """The keys that begin with a prefix."""
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(found.data)}</Size>"
            f"<LastModified>2026-11-20T10:00:00.000Z</LastModified><ETag>{marks(found)['ETag']}</ETag></Contents>"
            for key, found in sorted(self.server.objects.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult>{items}</ListBucketResult>".encode()

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None, *, length: bool = True) -> None:
        """Send an answer."""
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length:
            self.send_header("Content-Length", str(len(data)))
        else:
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def marks(found: Stored) -> dict[str, str]:
    """The headers that tell one state of an object from another."""
    return {"ETag": f'"{md5(found.data).hexdigest()}"', "x-goog-generation": str(found.generation)}


@contextmanager
def google_server() -> Iterator[GoogleServer]:
    """Start an imitation on a free port; it stops at the end of the context."""
    with GoogleServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
