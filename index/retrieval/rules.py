"""The business rules of a query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from index.retrieval.boosts import Boost
from index.retrieval.minimums import NEW_ITEMS, Group


@dataclass(frozen=True, slots=True)
class Rules:
    """Applied to the allowed items in this order, with diversity before the minimums.

    boosts: at most MAX_BOOSTS; an item gets the sum of those whose attributes it has.
    interest_quota: candidates that one interest may have found at the most, see within_quota; not
    of popular items.
    min_per_category: candidates of a category at the least; any category of an item counts.
    min_new_items: candidates of the delta at the least. Both are in sum at most k, and may break
    the quota.
    """

    boosts: Sequence[Boost] = ()
    interest_quota: int | None = None
    min_per_category: Mapping[str, int] = field(default_factory=dict)
    min_new_items: int = 0

    @property
    def minimums(self) -> Mapping[Group, int]:
        """Of categories, and of new items."""
        least: dict[Group, int] = dict(self.min_per_category.items())
        return {**least, NEW_ITEMS: self.min_new_items} if self.min_new_items else least

    def __bool__(self) -> bool:
        """Whether there is any."""
        has_quota = self.interest_quota is not None
        return has_quota or bool(self.boosts or self.min_per_category or self.min_new_items)
