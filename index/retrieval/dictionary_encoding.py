"""A value for each of many items, such as its category: small integers, and the distinct values."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, eq=False)
class DictionaryEncoded(Sequence[T | None], Generic[T]):
    """codes (N,) int32: 0 for None, else 1 + the position in `distinct`."""

    codes: NDArray[np.int32]
    distinct: Sequence[T]

    @classmethod
    def of(cls, values: Sequence[T | None]) -> "DictionaryEncoded[T]":
        """Numbered in order of appearance."""
        distinct = [value for value in dict.fromkeys(values) if value is not None]
        code_of: dict[T | None, int] = {value: code for code, value in enumerate(distinct, start=1)}
        code_of[None] = 0
        codes = np.fromiter(map(code_of.__getitem__, values), np.int32, len(values))
        return cls(codes, distinct)

    @classmethod
    def of_none(cls, count: int) -> "DictionaryEncoded[T]":
        """None for each; takes no memory."""
        return cls(np.broadcast_to(np.int32(0), count), ())

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, position: int) -> T | None: ...
    @overload
    def __getitem__(self, position: slice) -> list[T | None]: ...
    def __getitem__(self, position: int | slice) -> T | list[T | None] | None:
        if isinstance(position, slice):
            return [self.distinct[code - 1] if code else None for code in self.codes[position]]
        code = self.codes[position]
        return self.distinct[code - 1] if code else None
