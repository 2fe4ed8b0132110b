"""A filter by attributes, as the HTTP client too can build it: without arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

Scalar = bool | float | str


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds for an item whose attribute `name` is, or as a list has, one of `any_of`, if given, and
    is a number within all given bounds.

    Values of different types are never equal, and an item without the attribute meets none.
    """

    name: str
    any_of: tuple[Scalar, ...] | None = None
    lt: float | None = None
    lte: float | None = None
    gt: float | None = None
    gte: float | None = None


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """Allows items for which each group of `every` holds, and no group of `none`.

    A group holds if all its conditions do; none is empty.
    """

    every: Sequence[Sequence[Condition]] = ()
    none: Sequence[Sequence[Condition]] = ()
