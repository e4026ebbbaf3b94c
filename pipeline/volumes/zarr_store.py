"""A zarr store on an ``ObjectStore``: the same atomic writes and the same errors, local or in a bucket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from pipeline.storage import ObjectStore


class ZarrStore(Store):
    """All chunk and metadata objects of one zarr hierarchy."""

    supports_writes = True
    supports_deletes = True
    supports_listing = True
    supports_partial_writes = False

    def __init__(self, objects: ObjectStore, *, read_only: bool = False) -> None:
        super().__init__(read_only=read_only)
        self.objects = objects

    def with_read_only(self, read_only: bool = False) -> ZarrStore:
        """The same objects, writable or not."""
        return ZarrStore(self.objects, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZarrStore) and (self.objects, self.read_only) == (other.objects, other.read_only)

    def __repr__(self) -> str:
        return f"ZarrStore({self.objects.url!r})"

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of a key or of a range of it; ``None`` if missing, ``ValueError`` if the object is empty."""
        data = self.objects.get_or_none(key, *_range(byte_range))
        if data == b"":  # zarr would read an empty object as a shard without chunks
            raise ValueError(f"{self.objects.url}/{key} has no bytes")
        return None if data is None else (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Store the bytes of a key, all or nothing."""
        self._check_writable()
        self.objects.put(key, value.to_bytes())

    def delete_sync(self, key: str) -> None:
        """Remove a key; nothing happens if there is none."""
        self._check_writable()
        self.objects.delete(key)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """See ``get_sync``."""
        return await asyncio.to_thread(self.get_sync, key, prototype=prototype, byte_range=byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """The ranges of several keys."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def set(self, key: str, value: Buffer) -> None:
        """See ``set_sync``."""
        await asyncio.to_thread(self.set_sync, key, value)

    async def set_partial_values(self, key_start_values: Iterable[tuple[str, int, bytes]]) -> None:
        """Required by zarr before 3.1.1, and never called: objects are put whole."""
        raise NotImplementedError("objects are put whole")

    async def delete(self, key: str) -> None:
        """See ``delete_sync``."""
        await asyncio.to_thread(self.delete_sync, key)

    async def exists(self, key: str) -> bool:
        """True if there is such a key."""
        return await asyncio.to_thread(self.objects.exists, key)

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        for key in await asyncio.to_thread(self.objects.list):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin with a prefix."""
        for key in await asyncio.to_thread(self.objects.list, prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The names right below a prefix."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        keys = await asyncio.to_thread(self.objects.list, folder)
        for name in sorted({key[len(folder) :].partition("/")[0] for key in keys}):
            yield name


def _range(request: ByteRequest | None) -> tuple[int | None, int | None]:
    if isinstance(request, RangeByteRequest):
        return request.start, request.end
    if isinstance(request, OffsetByteRequest):
        return request.offset, None
    return (-request.suffix, None) if isinstance(request, SuffixByteRequest) else (None, None)
