"""Attributes of items, such as price and brand, and the rows that a filter by them allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.retrieval.attribute_filter import AttributeFilter, Condition, Scalar
from index.retrieval.details import Value
from index.retrieval.dictionary_encoding import DictionaryEncoded


class Column(Protocol):
    """An attribute of N items."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Value | None:
        """None where unknown."""
        ...

    def passes(self, condition: Condition) -> NDArray[np.bool_]:
        """(N,): whether the condition holds; an array of its own."""
        ...


@dataclass(frozen=True, eq=False)
class Numbers:
    """values (N,): NaN where unknown."""

    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, position: int) -> float | None:
        value = float(self.values[position])
        return None if np.isnan(value) else value

    def passes(self, condition: Condition) -> NDArray[np.bool_]:
        """(N,): whether the condition holds."""
        values, parts = self.values, []
        if condition.any_of is not None:
            numbers = [value for value in condition.any_of if type(value) is float]
            parts.append(values == numbers[0] if len(numbers) == 1 else np.isin(values, numbers))
        if condition.lt is not None:
            parts.append(values < condition.lt)
        if condition.lte is not None:
            parts.append(values <= condition.lte)
        if condition.gt is not None:
            parts.append(values > condition.gt)
        if condition.gte is not None:
            parts.append(values >= condition.gte)
        holds: NDArray[np.bool_] = np.logical_and.reduce(parts)
        return holds


@dataclass(frozen=True, eq=False)
class Labels:
    """Booleans, texts or lists of texts, of N items, each different one held once."""

    encoded: DictionaryEncoded[bool | str | tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, position: int) -> Value | None:
        return self.encoded[position]

    def passes(self, condition: Condition) -> NDArray[np.bool_]:
        """(N,): whether the condition holds."""
        passes = np.zeros(len(self.encoded.distinct) + 1, np.bool_)
        bounds = condition.lt, condition.lte, condition.gt, condition.gte
        if condition.any_of is not None and bounds == (None,) * 4:
            for value in condition.any_of:
                passes[self._codes_of.get((type(value), value), [])] = True
        return passes.take(self.encoded.codes)

    @cached_property
    def _codes_of(self) -> dict[tuple[type, Scalar], list[int]]:
        """By type too, as True equals 1."""
        codes_of: dict[tuple[type, Scalar], list[int]] = {}
        for code, label in enumerate(self.encoded.distinct, start=1):
            for value in set(label) if isinstance(label, tuple) else (label,):
                codes_of.setdefault((type(value), value), []).append(code)
        return codes_of


def column_of(values: Sequence[Value | None]) -> Numbers | Labels:
    """Values of N items, all of one type; None where unknown."""
    known = next((value for value in values if value is not None), None)
    if isinstance(known, float):
        return Numbers(np.array([np.nan if value is None else value for value in values]))
    labels = [None if isinstance(value, float) else value for value in values]
    return Labels(DictionaryEncoded.of(labels))


def columns_of(items: Sequence[Mapping[str, Value]]) -> dict[str, Numbers | Labels]:
    """The attributes of N items, by name."""
    names = sorted({name for item in items for name in item})
    return {name: column_of([item.get(name) for item in items]) for name in names}


class RowMask:
    """passes (N + 1,): whether each row is allowed; row 0 is not."""

    def __init__(self, passes: NDArray[np.bool_]) -> None:
        self.passes = passes
        self.count = int(np.count_nonzero(passes))

    @cached_property
    def penalties(self) -> NDArray[np.float32]:
        """(N + 1,): 0 for an allowed row, else minus infinity."""
        penalty = np.array([-np.inf, 0], np.float32)
        return penalty.take(self.passes.view(np.uint8), mode="clip")  # half an assignment's time


def mask(columns: Mapping[str, Column], allowed: AttributeFilter, items: int) -> NDArray[np.bool_]:
    """(N + 1,): whether the filter allows each row; False for row 0. items: N."""
    passes = np.ones(items + 1, np.bool_)
    passes[0] = False
    for group in allowed.every:
        for condition in group:
            passes[1:] &= _passes(columns, condition, items)
    for group in allowed.none:
        holds = np.logical_and.reduce([_passes(columns, each, items) for each in group])
        passes[1:] &= ~holds
    return passes


def _passes(columns: Mapping[str, Column], condition: Condition, items: int) -> NDArray[np.bool_]:
    column = columns.get(condition.name)
    return np.zeros(items, np.bool_) if column is None else column.passes(condition)
