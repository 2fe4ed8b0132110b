"""Rows in blocks: what is computed of ten million vectors must not take a copy of them all."""

from collections.abc import Iterator

ROWS_PER_BLOCK = 1 << 16  # 16 MiB of 64 float32 components each


def blocks(rows: int, size: int = ROWS_PER_BLOCK) -> Iterator[slice]:
    """Slices of `size` rows, the last one shorter, that make up all rows."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
