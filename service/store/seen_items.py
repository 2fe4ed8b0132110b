"""The items that a user has met: members of a sorted set, by the time of the newest event.

A member is an item with the kind of its events, <bytes of the kind>:<kind><item>; an event without
a kind has an empty one.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SeenItems:
    """Which of the items that a user has met are wanted.

    kinds: of events; None is all. since: the earliest time of the newest event, in Unix seconds.
    """

    kinds: frozenset[str] | None = None
    since: float = 0.0

    def items(self, members: Iterable[bytes]) -> list[str]:
        """The ids of items with events of these kinds, each once."""
        wanted = None if self.kinds is None else {kind.encode() for kind in self.kinds}
        found: dict[bytes, None] = {}
        for member in members:
            size, _, text = member.partition(b":")
            length = int(size)
            if wanted is None or text[:length] in wanted:
                found[text[length:]] = None
        return [item.decode("utf-8", "replace") for item in found]


ALL_SEEN = SeenItems()
