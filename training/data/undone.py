"""Interactions that a later one takes back, as a return does a purchase."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def undone(
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    times: NDArray[np.float64],
    undoes: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """(n,): of rows in any order, those that undo, and those that they undo.

    A row undoes the newest of its user and item that is not later, and that no other undoes. Rows
    of the same user, item and time count as one.
    """
    pairs = users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items
    rows = np.flatnonzero(np.isin(pairs, pairs[undoes]))
    rows = rows[np.lexsort((undoes[rows], times[rows], pairs[rows]))]
    first = _is_first(pairs[rows], times[rows], undoes[rows])
    distinct = rows[first]
    fate = undoes[distinct] | _matched(pairs[distinct], undoes[distinct])
    mask = np.zeros(len(users), dtype=bool)
    mask[rows] = fate[np.cumsum(first) - 1]
    return mask


def codes_of(ids: pa.ChunkedArray) -> NDArray[np.int32]:
    """(n,): a code of each row's id."""
    codes: NDArray[np.int32] = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    return codes


def _is_first(*columns: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(n,): whether a row differs from the one before it in any column."""
    first = np.zeros(len(columns[0]), dtype=bool)
    first[:1] = True
    for column in columns:
        first[1:] |= column[1:] != column[:-1]
    return first


def _matched(pairs: NDArray[np.int64], undoes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,): the rows that are undone, of rows in order of pair, then time: as an opening bracket is
    closed, with the rows that undo as the closing ones."""
    steps = np.where(undoes, -1, 1).astype(np.int64)
    sums = np.cumsum(steps)
    starts = np.flatnonzero(_is_first(pairs))
    sizes = np.diff(np.append(starts, len(pairs)))
    sums -= np.repeat(sums[starts] - steps[starts], sizes)
    # The least sum of the pair so far, at most 0: so many rows undo nothing. Each pair is lower
    # than all that the one before can reach, so one pass serves them all.
    depth = np.repeat(np.arange(len(starts)) * (2 * len(pairs) + 1), sizes)
    least = np.minimum(np.minimum.accumulate(sums - depth) + depth, 0)
    before = np.append(0, least)[:-1]
    before[starts] = 0
    closes_nothing = least < before
    level = sums - least + undoes  # of a bracket, from 1
    order = np.lexsort((level, pairs))  # stable: by time within a level
    order = order[~closes_nothing[order]]
    same = (pairs[order][1:] == pairs[order][:-1]) & (level[order][1:] == level[order][:-1])
    closed = ~undoes[order][:-1] & undoes[order][1:] & same
    mask = np.zeros(len(pairs), dtype=bool)
    mask[order[:-1][closed]] = True
    return mask
