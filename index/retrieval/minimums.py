"""Minimums: so many of the candidates are of a category, or new items, if so many are allowed."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.retrieval.merge import QueryHits

Rows = NDArray[np.int64]
Group = str | None  # a category, or
NEW_ITEMS: Final = None  # the items of a delta


def with_minimums(
    chosen: QueryHits,
    minimums: Mapping[Group, int],
    best: Callable[[Group, int], QueryHits],
    are_of: Callable[[Rows, Group], NDArray[np.bool_]],
    k: int,
) -> QueryHits:
    """At most k items: the chosen ones, and at the end what groups lacked.

    One group after the other gets the best of its items that it lacks. Then items are dropped, the
    lowest score first and of equal ones the higher row, down to k: none that leaves a group of it
    without its minimum.

    minimums: in sum at most k. best: the so many best items of a group. are_of: whether each row
    is of a group.
    """
    for group, least in minimums.items():
        lacking = least - int(are_of(chosen[0], group).sum())
        if lacking <= 0:
            continue
        found = best(group, least)
        new = np.flatnonzero(~np.isin(found[0], chosen[0]))[:lacking]
        rows = np.concatenate((chosen[0], found[0].take(new)))
        scores = np.concatenate((chosen[1], found[1].take(new)))
        interests = np.concatenate((chosen[2], found[2].take(new)))
        kept = _kept(rows, scores, minimums, are_of, k)
        chosen = rows.take(kept), scores.take(kept), interests.take(kept)
    return chosen


def _kept(
    rows: Rows,
    scores: NDArray[np.float32],
    minimums: Mapping[Group, int],
    are_of: Callable[[Rows, Group], NDArray[np.bool_]],
    k: int,
) -> NDArray[np.int64]:
    """Positions of the k items that are kept, ascending."""
    groups_of: list[list[Group]] = [[] for _ in rows]
    spare: dict[Group, int] = {}  # items beyond the minimum
    for group, least in minimums.items():
        positions = np.flatnonzero(are_of(rows, group)).tolist()
        spare[group] = len(positions) - least
        for position in positions:
            groups_of[position].append(group)
    kept = set(range(len(rows)))
    for position in np.lexsort((-rows, scores)).tolist():
        if len(kept) <= k:
            break
        if all(spare[group] > 0 for group in groups_of[position]):
            kept.remove(position)
            for group in groups_of[position]:
                spare[group] -= 1
    return np.array(sorted(kept), np.int64)
