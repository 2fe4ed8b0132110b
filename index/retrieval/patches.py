"""Details of some items that are newer than a release, over the columns of its catalogue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from index.retrieval.attribute_filter import Condition
from index.retrieval.attributes import Column, Labels, Numbers
from index.retrieval.catalog import Catalog
from index.retrieval.details import Value
from index.retrieval.dictionary_encoding import DictionaryEncoded

T = TypeVar("T")


class PatchedSequence(Sequence[T], Generic[T]):
    """A sequence in which the values of some positions are others."""

    def __init__(self, base: Sequence[T], values: Mapping[int, T]) -> None:
        self._base, self._values = base, values

    def __len__(self) -> int:
        return len(self._base)

    @overload
    def __getitem__(self, position: int) -> T: ...
    @overload
    def __getitem__(self, position: slice) -> list[T]: ...
    def __getitem__(self, position: int | slice) -> T | list[T]:
        if isinstance(position, slice):
            return [self[at] for at in range(*position.indices(len(self)))]
        at = position + len(self) if position < 0 else position
        return self._values[at] if at in self._values else self._base[position]


@dataclass(frozen=True, eq=False)
class PatchedColumn:
    """An attribute of N items, M of which have other values than the column, of any types.

    values: by position. positions (M,), numbers (M,) and labels (M,): the same in other words; each
    value is in one of the two columns, and unknown in the other.
    """

    base: Column
    values: Mapping[int, Value]
    positions: NDArray[np.int64]
    numbers: Numbers
    labels: Labels

    @classmethod
    def of(cls, base: Column, values: Mapping[int, Value]) -> "PatchedColumn":
        numbers = [value if isinstance(value, float) else np.nan for value in values.values()]
        labels = [None if isinstance(value, float) else value for value in values.values()]
        return cls(
            base,
            values,
            np.fromiter(values, np.int64, len(values)),
            Numbers(np.array(numbers, np.float64)),
            Labels(DictionaryEncoded.of(labels)),
        )

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, position: int) -> Value | None:
        return self.values[position] if position in self.values else self.base[position]

    def passes(self, condition: Condition) -> NDArray[np.bool_]:
        """(N,): whether the condition holds."""
        passes = self.base.passes(condition)
        passes[self.positions] = self.numbers.passes(condition) | self.labels.passes(condition)
        return passes


def patch_details(
    catalog: Catalog,
    titles: Mapping[int, str],
    attributes: Mapping[str, Mapping[int, Value]],
) -> Catalog:
    """The catalogue with other titles and attributes. titles, values of attributes: by position."""
    columns = dict(catalog.attributes)
    for name, values in attributes.items():
        unknown = Labels(DictionaryEncoded.of_none(len(catalog)))
        columns[name] = PatchedColumn.of(catalog.attributes.get(name, unknown), values)
    named = PatchedSequence(catalog.titles, titles) if titles else catalog.titles
    return catalog.with_details(titles=named, attributes=columns)


def patch_categories(catalog: Catalog, categories: Mapping[int, Sequence[str]]) -> Catalog:
    """The catalogue with other categories. categories: by position, the first before others."""
    first = _with_names(catalog.categories, {at: names[0] for at, names in categories.items()})
    others = catalog.other_categories
    if others or any(len(names) > 1 for names in categories.values()):
        others = others or [()] * len(catalog)
        others = PatchedSequence(others, {at: names[1:] for at, names in categories.items()})
    return catalog.with_details(categories=first, other_categories=others)


def _with_names(
    names: Sequence[str | None], changed: Mapping[int, str]
) -> DictionaryEncoded[str] | PatchedSequence[str | None]:
    if not isinstance(names, DictionaryEncoded):
        return PatchedSequence(names, changed)
    codes, code_of = names.codes.copy(), {name: at for at, name in enumerate(names.distinct, 1)}
    for position, name in changed.items():
        codes[position] = code_of.setdefault(name, len(code_of) + 1)
    return DictionaryEncoded(codes, [*code_of])
