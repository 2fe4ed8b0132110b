"""Minimums of categories: so many of the candidates are of a category, if so many are allowed."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from index.retrieval.merge import QueryHits

Rows = NDArray[np.int64]


def with_minimums(
    chosen: QueryHits,
    minimums: Mapping[str, int],
    best: Callable[[str, int], QueryHits],
    are_of: Callable[[Rows, str], NDArray[np.bool_]],
    k: int,
) -> QueryHits:
    """At most k items: the chosen ones, and at the end what categories lacked.

    One category after the other gets the best of its items that it lacks. Then items are dropped,
    the lowest score first and of equal ones the higher row, down to k: none that leaves a category
    of it without its minimum.

    minimums: in sum at most k. best: the so many best items of a category. are_of: whether each
    row is of a category.
    """
    for category, least in minimums.items():
        lacking = least - int(are_of(chosen[0], category).sum())
        if lacking <= 0:
            continue
        found = best(category, least)
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
    minimums: Mapping[str, int],
    are_of: Callable[[Rows, str], NDArray[np.bool_]],
    k: int,
) -> NDArray[np.int64]:
    """Positions of the k items that are kept, ascending."""
    categories_of: list[list[str]] = [[] for _ in rows]
    spare: dict[str, int] = {}  # items beyond the minimum
    for category, least in minimums.items():
        positions = np.flatnonzero(are_of(rows, category)).tolist()
        spare[category] = len(positions) - least
        for position in positions:
            categories_of[position].append(category)
    kept = set(range(len(rows)))
    for position in np.lexsort((-rows, scores)).tolist():
        if len(kept) <= k:
            break
        if all(spare[category] > 0 for category in categories_of[position]):
            kept.remove(position)
            for category in categories_of[position]:
                spare[category] -= 1
    return np.array(sorted(kept), np.int64)
