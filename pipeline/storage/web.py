"""Objects behind a web server (read only) and in memory, through cloud-files."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from pipeline.storage.base import md5

ONE_WRITER = threading.Lock()
"""The lock of ``put_if``. ``mem://`` lives in one process, and other addresses here cannot be written."""


class WebBackend:
    """``https://`` and ``mem://``; failed requests are repeated by cloud-files itself."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _files(self) -> Any:
        from cloudfiles import CloudFiles  # the import takes one to two seconds

        return CloudFiles(self.url, progress=False)

    def get(self, key: str, start: int | None, stop: int | None) -> bytes | None:
        """See ``Backend``."""
        if start is None and stop is None:
            return self._files.get(key)  # type: ignore[no-any-return]
        size = self._size(key)
        if size is None:
            return None
        first = max(0, size + start) if start and start < 0 else start or 0
        last = size if stop is None else min(stop, size)
        if first >= last:
            return b""
        data: bytes = self._files.get({"path": key, "start": first, "end": last})
        return data if len(data) <= last - first else data[first:last]  # plain web servers send the whole file

    def _size(self, key: str) -> int | None:
        """``size`` of cloud-files fails for what a web server has not, and its ``head`` for what memory has not."""
        if self.url.startswith("mem://"):
            return self._files.size(key)  # type: ignore[no-any-return]
        headers = self._files.head(key)
        return None if headers is None else int(headers["Content-Length"])

    def put(self, key: str, data: bytes, durable: bool) -> None:
        """See ``Backend``."""
        self._files.put(key, bytes(data), compress=None, cache_control="no-cache")

    def get_versioned(self, key: str) -> tuple[bytes, str] | None:
        """See ``Backend``; the version is a digest of the bytes."""
        data = self.get(key, None, None)
        return None if data is None else (data, md5(data))

    def put_if(self, key: str, data: bytes, version: str | None) -> str | None:
        """See ``Backend``."""
        with ONE_WRITER:
            present = self.get_versioned(key)
            if version != (None if present is None else present[1]):
                return None
            self.put(key, data, True)
        return md5(data)

    def exists(self, key: str) -> bool:
        """See ``Backend``."""
        return bool(self._files.exists(key))

    def list(self, prefix: str) -> Iterator[str]:
        """See ``Backend``."""
        if not self.url.startswith("mem://"):
            return iter(self._files.list(prefix))
        from cloudfiles import CloudFiles

        bucket, _, folder = self.url.removeprefix("mem://").partition("/")
        path = f"{folder.rstrip('/')}/" if folder else ""
        everything = CloudFiles(f"mem://{bucket}", progress=False).list(
            path + prefix
        )  # a folder lists its siblings too
        return (key.removeprefix(path) for key in everything)

    def some(self, count: int) -> Sequence[str] | None:
        """See ``Backend``; web servers do not list."""
        return list(self.list(""))[:count] if self.url.startswith("mem://") else None

    def delete(self, key: str) -> None:
        """See ``Backend``."""
        self._files.delete(key)
