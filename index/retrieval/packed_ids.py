"""The ids of many items in few bytes, and the row of each: without an object for every item.

A list and a dict of Python strings take some 150 bytes an item in every process, and seconds to
build. Here an id takes its UTF-8 and 12 to 16 bytes, and a look-up two microseconds.
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_BLOCK = 1 << 16  # ids that are hashed at a time, so that they stay cached
# Of CRC-32, a byte at a time: for one byte it is table[255 ^ byte] ^ 0xFF000000.
_CRC_TABLE = np.array(
    [zlib.crc32(bytes([255 ^ index])) ^ 0xFF000000 for index in range(256)], np.uint32
)


class PackedIds(Sequence[str]):
    """N ids in row order, and a hash table over them: rows sorted by the CRC-32 of their ids."""

    def __init__(self, ids: pa.LargeStringArray) -> None:
        """ids: without a null."""
        _, offsets, data = ids.buffers()
        self._data = memoryview(data or b"").cast("B")  # unsigned, as bytes are
        positions = np.frombuffer(offsets, np.int64)[ids.offset : ids.offset + len(ids) + 1]
        self._offsets = positions.data
        # In place where it can be: of ten million ids, an array is 40 or 80 MB of fresh pages.
        keys = np.arange(len(ids), dtype=np.uint64)
        crc = _crc32(np.frombuffer(self._data, np.uint8), positions)
        keys |= np.left_shift(crc, 32, dtype=np.uint64)
        keys.sort()
        self._rows = keys.astype(np.uint32).data
        keys >>= np.uint64(32)
        self._collisions = np.unique(keys[1:][keys[1:] == keys[:-1]])
        self._shift = min(31, 33 - len(ids).bit_length())  # one or two ids a bucket
        keys >>= np.uint64(self._shift)
        sizes = np.bincount(keys.view(np.int64), minlength=1 << (32 - self._shift))
        starts = np.zeros(len(sizes) + 1, np.uint32)
        starts[1:] = np.cumsum(sizes, out=sizes)
        self._starts = starts.data

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[at] for at in range(*position.indices(len(self)))]
        return str(self._bytes(range(len(self))[position]), "utf-8")

    def rows(self, item_ids: Iterable[str]) -> list[int]:
        """The row, from 1 on, of each id; 0 for an unknown one."""
        return [self._row(item_id.encode("utf-8", "surrogatepass")) for item_id in item_ids]

    def are_unique(self) -> bool:
        for collision in self._collisions.tolist():
            ids = [bytes(self._bytes(at)) for at in self._bucket(collision)]
            if len(set(ids)) != len(ids):
                return False
        return True

    def _row(self, item_id: bytes) -> int:
        for position in self._bucket(zlib.crc32(item_id)):
            if self._bytes(position) == item_id:
                return position + 1
        return 0

    def _bucket(self, crc: int) -> memoryview:
        """Positions of the ids whose hash begins like this one."""
        bucket = crc >> self._shift
        return self._rows[self._starts[bucket] : self._starts[bucket + 1]]

    def _bytes(self, position: int) -> memoryview:
        return self._data[self._offsets[position] : self._offsets[position + 1]]


def _crc32(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.uint32]:
    """CRC-32 (N,) of data[offsets[i] : offsets[i + 1]], as zlib computes it one by one."""
    hashes = np.empty(len(offsets) - 1, np.uint32)
    for start in range(0, len(hashes), _BLOCK):
        ends = offsets[start + 1 : start + 1 + _BLOCK]
        at = offsets[start : start + len(ends)].copy()
        crc = np.full(len(ends), 0xFFFFFFFF, np.uint32)
        for _ in range((ends - at).min()):  # bytes that all of them have
            crc = _add_byte(crc, data.take(at))
            at += 1
        while len(longer := np.flatnonzero(at < ends)):
            crc[longer] = _add_byte(crc.take(longer), data.take(at.take(longer)))
            at[longer] += 1
        hashes[start : start + len(ends)] = ~crc
    return hashes


def _add_byte(crc: NDArray[np.uint32], byte: NDArray[np.uint8]) -> NDArray[np.uint32]:
    return _CRC_TABLE.take((crc ^ byte) & np.uint32(0xFF)) ^ (crc >> np.uint32(8))
