"""A check of compressed_segmentation chunks before they are decoded, since the decoder does not check their offsets.

    word 0              where the channel begins
    channel             two words for each block: [ bits << 24 | table offset ] [ offset of the values ]
    values              ``bits`` bits for each voxel: its index in the block's table
    table               the labels of the block, one or two words each

All offsets count 32-bit words from the channel's beginning. Reference: Neuroglancer, compressed_segmentation format.
"""

from __future__ import annotations

from math import ceil, prod

import numpy as np

BITS = (0, 1, 2, 4, 8, 16, 32)


def check_compressed_segmentation(
    content: bytes, shape: tuple[int, ...], block: tuple[int, ...], label_bytes: int
) -> None:
    """Refuse a chunk of one channel that would be read beyond its end: ``ValueError``.

    shape, block: voxels of the chunk and of a block, in the stored axis order.
    """
    if len(content) % 4 or len(content) < 4:
        raise ValueError(f"compressed_segmentation of {len(content)} bytes; it must be whole words of 4 bytes")
    words = np.frombuffer(content, "<u4")
    channel = words[int(words[0]) :]
    blocks = prod(ceil(n / b) for n, b in zip(shape, block, strict=True))
    if len(channel) < 2 * blocks:
        raise ValueError(f"compressed_segmentation of {len(channel)} words; {blocks} blocks need {2 * blocks} and more")
    headers = channel[: 2 * blocks].reshape(-1, 2).astype(np.int64)
    bits, tables, values = headers[:, 0] >> 24, headers[:, 0] & 0xFFFFFF, headers[:, 1]
    value_words = (bits * prod(block) + 31) // 32
    if not np.isin(bits, BITS).all() or (values + value_words > len(channel)).any():
        raise ValueError("compressed_segmentation with values beyond its end")
    table_words = (np.int64(1) << np.minimum(bits, 31)) * (label_bytes // 4)
    for k in np.flatnonzero(tables + table_words > len(channel)):  # only few: tables at the end need not be full
        used = channel[values[k] : values[k] + value_words[k]]
        if tables[k] + (_largest(used, int(bits[k])) + 1) * (label_bytes // 4) > len(channel):
            raise ValueError("compressed_segmentation with a table beyond its end")


def _largest(words: np.ndarray, bits: int) -> int:
    if bits == 0:
        return 0
    fields = (words[:, None] >> np.arange(0, 32, bits, dtype=np.uint32)) & np.uint32((1 << bits) - 1)
    return int(fields.max())
