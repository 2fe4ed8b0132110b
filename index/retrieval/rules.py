"""The business rules of a query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from index.retrieval.boosts import Boost


@dataclass(frozen=True, slots=True)
class Rules:
    """Applied to the allowed items in this order, with diversity before the minimums.

    boosts: at most MAX_BOOSTS; an item gets the sum of those whose attributes it has.
    interest_quota: candidates that one interest may have found at the most, see within_quota; not
    of popular items.
    min_per_category: candidates of a category at the least, in sum at most k; any category of an
    item counts. They may break the quota.
    """

    boosts: Sequence[Boost] = ()
    interest_quota: int | None = None
    min_per_category: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is any."""
        has_quota = self.interest_quota is not None
        return has_quota or bool(self.boosts) or bool(self.min_per_category)
