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
        wanted = None if self.kinds is None else {_prefix(kind.encode()) for kind in self.kinds}
        found: dict[bytes, None] = {}
        prefix, size, is_wanted = b"", 0, False
        for member in members:
            # Mostly as that of the member before, which is faster to see than to read.
            if not size or not member.startswith(prefix):
                digits, _, text = member.partition(b":")
                prefix = _prefix(text[: int(digits)])
                size, is_wanted = len(prefix), wanted is None or prefix in wanted
            if is_wanted:
                found[member[size:]] = None
        return [item.decode("utf-8", "replace") for item in found]


def _prefix(kind: bytes) -> bytes:
    return b"%d:%b" % (len(kind), kind)


ALL_SEEN = SeenItems()
