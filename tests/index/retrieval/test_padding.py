"""Both functions implement one rule of order, truncation and padding."""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from index.retrieval.padding import pad_histories, pad_slices

REPEATABLE = settings(deadline=None, derandomize=True)
HISTORIES = st.lists(st.lists(st.integers(0, 5), max_size=9), max_size=6)
LENGTHS = st.integers(1, 7)


def reference_padding(histories: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """The last `length` items, newest in the last column, zeros before them."""
    padded = []
    for history in histories:
        padded_row = [0] * length
        for steps_back in range(1, min(length, len(history)) + 1):
            padded_row[length - steps_back] = history[len(history) - steps_back]
        padded.append(padded_row)
    return padded


def test_a_short_history_is_padded_on_the_left_and_a_long_one_loses_its_oldest() -> None:
    padded = pad_histories([[1, 2, 3], [1, 2, 3, 4, 5, 6], []], 5)
    assert padded.tolist() == [[0, 0, 1, 2, 3], [2, 3, 4, 5, 6], [0, 0, 0, 0, 0]]
    assert padded.dtype == np.int64


def test_an_unknown_item_leaves_no_gap() -> None:
    assert pad_histories([[1, 0, 2, 0], [0, 0], [7, 0, 8, 9]], 3).tolist() == [
        [0, 1, 2],
        [0, 0, 0],
        [7, 8, 9],
    ]


def test_no_histories_give_no_rows() -> None:
    assert pad_histories([], 3).shape == (0, 3)
    none = torch.zeros(0, dtype=torch.int64)
    assert pad_slices(none, none, none, 3).shape == (0, 3)


def test_slices_may_overlap_and_stay_in_their_bounds() -> None:
    rows = torch.arange(10, 16, dtype=torch.int32)
    padded = pad_slices(rows, torch.tensor([0, 0, 2, 4]), torch.tensor([1, 4, 6, 4]), 3)
    assert padded.tolist() == [[0, 0, 10], [11, 12, 13], [13, 14, 15], [0, 0, 0]]
    assert padded.dtype == torch.int32


@REPEATABLE
@given(HISTORIES, LENGTHS)
def test_pad_histories_agrees_with_the_reference(histories: list[list[int]], length: int) -> None:
    known = [[row for row in history if row] for history in histories]
    assert pad_histories(histories, length).tolist() == reference_padding(known, length)


@REPEATABLE
@given(HISTORIES, LENGTHS)
def test_pad_slices_agrees_with_pad_histories(histories: list[list[int]], length: int) -> None:
    """Trainer and server pad in the same way."""
    known = [[row for row in history if row] for history in histories]
    ends = np.cumsum([len(history) for history in known], dtype=np.int64)
    starts = ends - [len(history) for history in known]
    flat = np.array([row for history in known for row in history], dtype=np.int32)
    expected = pad_histories(histories, length)
    given = (torch.from_numpy(each) for each in (flat, starts, ends))
    np.testing.assert_array_equal(pad_slices(*given, length), expected)
