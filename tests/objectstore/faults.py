"""A server in front of the S3 server that behaves as bad networks and stores do: 500, 503, slow, cut, lost, reset.

Which request meets which fault is decided by the seed, the method, the path and how often that was asked before, so a
seed gives the same faults in every run, whatever order threads send their requests in.

    500, 503   refused before the store has seen it
    slow       answered a third of a second late
    cut        half of the body, then the connection ends
    short      half of the body, with a length that agrees: only a checksum sees it
    upload     half of what was sent is stored, without an error: only a checksum sees it
    lost       carried out, but the connection is reset before the answer
    reset      the connection is reset before the store has seen the request
    deaf       conditions (If-Match, If-None-Match) are ignored; not among the faults that pass
    403        refused as S3 refuses users without rights; not among the faults that pass
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from pipeline.storage import bucket, bucket_client
from pipeline.storage.bucket_client import Patience
from tests.objectstore.server import S3Server, set_environment

KINDS = ("500", "503", "slow", "cut", "short", "upload", "lost", "reset")
SLOW_SECONDS = 0.3
CODES = {"500": b"InternalError", "503": b"SlowDown", "403": b"AccessDenied"}
ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>Please try again.</Message></Error>"
BUCKET = re.compile("^/[^/?]+")
NOT_PASSED_ON = ("connection", "transfer-encoding", "content-length", "server", "date")


class FaultyServer(ThreadingHTTPServer):
    """A server that passes requests on to ``upstream``; a share ``rate`` of them meet a fault of one of ``kinds``."""

    daemon_threads = True

    def __init__(self, upstream: str, *, seed: int = 0, rate: float = 0.0, kinds: tuple[str, ...] = KINDS) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = urlsplit(upstream).netloc
        self.seed, self.rate, self.kinds = seed, rate, kinds
        self.asked: Counter[tuple[str, str]] = Counter()
        """Number of requests for each method and path, without its bucket."""
        self.faults: Counter[str] = Counter()
        """Number of requests that met each fault."""
        self.requests = 0
        self.down_at: str | None = None
        """All requests are answered with 503 from the first one on whose path contains this text."""
        self.down = False
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fate(self, method: str, path: str) -> str:
        """The fault that this request meets, or nothing."""
        with self.lock:
            self.requests += 1
            self.down = self.down or (self.down_at is not None and self.down_at in path)
            if self.down:
                return "503"
            key = method, BUCKET.sub("", path)  # the name of the bucket differs between runs
            self.asked[key] += 1
            dice = random.Random(f"{self.seed} {key} {self.asked[key]}")
            kind = dice.choice(self.kinds) if dice.random() < self.rate else ""
            if kind:
                self.faults[kind] += 1
            return kind

    def handle_error(self, *_: object) -> None:
        """Ignore clients that hang up: the faults make them do so."""


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # without this each answer waits 40 ms for an acknowledgement
    server: FaultyServer

    def pass_on(self) -> None:
        """Answer one request, perhaps with a fault."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fate = self.server.fate(self.command, self.path)
        if fate == "reset":
            return self.reset()
        if fate in CODES:
            return self.answer(int(fate), {}, ERROR % CODES[fate])
        if fate == "slow":
            time.sleep(SLOW_SECONDS)
        status, headers, data = self.upstream(body[: len(body) // 2] if fate == "upload" else body)
        if fate == "lost":
            return self.reset()
        if fate == "short" and status == 200 and self.command == "GET":
            data = data[: len(data) // 2]
        return self.answer(status, headers, data, cut=fate == "cut")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on  # noqa: N815  (names of http.server)

    def upstream(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send the request with this body to the store; returns its answer."""
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON}
        if self.server.kinds == ("deaf",):
            headers = {name: value for name, value in headers.items() if not name.lower().startswith("if-")}
        connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        with connection.getresponse() as response:
            if self.command == "HEAD":
                return response.status, dict(response.getheaders()), b""
            kept = {name: value for name, value in response.getheaders() if name.lower() not in NOT_PASSED_ON}
            return response.status, kept, response.read()

    def answer(self, status: int, headers: dict[str, str], data: bytes, *, cut: bool = False) -> None:
        """Send an answer, or half of it."""
        self.send_response_only(status)
        headers = {name: value for name, value in headers.items() if name.lower() not in ("connection", "server")}
        if "content-length" not in map(str.lower, headers):
            headers["Content-Length"] = str(len(data))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut

    def reset(self) -> None:
        """Reset the connection."""
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def faulty_server(upstream: str, **options: object) -> Iterator[FaultyServer]:
    """Start a faulty server on a free port; it stops at the end of the context."""
    with FaultyServer(upstream, **options) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def behind_faults(store: S3Server, patience: Patience, patch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A server in front of a store, without faults yet; this process and its children connect to it."""
    patch.setattr(bucket_client, "PATIENCE", patience)
    patch.setattr(bucket, "FIRST_PAUSE", 0.01)
    with faulty_server(store.endpoint) as server:
        set_environment(patch, {**store.environment, "AWS_ENDPOINT_URL": server.endpoint})
        yield server
    bucket_client.connect.cache_clear()
