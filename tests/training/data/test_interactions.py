"""Interactions and their k-core, compared with plain Python."""

from collections import Counter
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.errors import LogError
from training.data.interactions import Interactions
from training.data.packed_log import prepare

Row = tuple[str, str, float]
LogOf = Callable[[list[Row]], Interactions]
RowsOf = Callable[[Interactions], list[Row]]

log_rows = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "ü3", "u10", "U"]),
        st.sampled_from(["a", "b", "01", "1", "é", "z"]),
        st.integers(0, 5).map(float),
    ),
    min_size=1,
    max_size=60,
)


@settings(deadline=None, derandomize=True)
@given(rows=log_rows)
def test_rows_are_sorted_by_user_then_time_and_duplicates_are_counted(
    log_of: LogOf, rows_of: RowsOf, rows: list[Row]
) -> None:
    log = log_of(rows)
    distinct = list(dict.fromkeys(rows))
    result = rows_of(log)
    assert sorted(result) == sorted(distinct)
    assert [(row[0], row[2]) for row in result] == sorted((row[0], row[2]) for row in distinct)
    assert log.duplicates == len(rows) - len(distinct)
    assert list(log.user_ids) == sorted({row[0] for row in rows})
    assert list(log.item_ids) == sorted({row[1] for row in rows})


@settings(deadline=None, derandomize=True)
@given(rows=log_rows, random=st.randoms(use_true_random=False))
def test_the_order_of_the_file_changes_nothing(
    log_of: LogOf, rows_of: RowsOf, rows: list[Row], random: Random
) -> None:
    shuffled = random.sample(rows, len(rows))
    assert rows_of(log_of(shuffled)) == rows_of(log_of(rows))


def test_ties_of_time_are_in_an_order_of_chance(log_of: LogOf, rows_of: RowsOf) -> None:
    """A file sorted by item, with one time a user: the last item must say nothing about itself."""
    items = [f"{item:02d}" for item in range(20)]
    rows = rows_of(log_of([(f"u{user}", item, 0.0) for user in range(400) for item in items]))
    orders = [[row[1] for row in rows[start : start + 20]] for start in range(0, len(rows), 20)]
    assert len({tuple(order) for order in orders}) == 400
    for position in (0, 19):
        counts = Counter(order[position] for order in orders)
        assert len(counts) == 20
        assert max(counts.values()) < 45  # 20 are expected, with a deviation of 4.4


def test_a_later_interaction_stays_later(log_of: LogOf, rows_of: RowsOf) -> None:
    rows = [("u", f"{item}", float(item // 3)) for item in range(30)]
    assert [row[2] for row in rows_of(log_of(rows[::-1]))] == [row[2] for row in rows]


def test_a_log_takes_at_most_16_bytes_an_interaction_beside_its_ids() -> None:
    rng = np.random.default_rng(0)
    n, users, items = 20_000, 50, 40
    log = Interactions.from_rows(
        rng.integers(users, size=n, dtype=np.int32),
        rng.integers(items, size=n, dtype=np.int32),
        rng.random(n),
        np.array([f"u{i}" for i in range(users)], dtype=object),
        np.array([f"i{i}" for i in range(items)], dtype=object),
    )
    _, packed = prepare(log, min_user_interactions=1, min_item_interactions=1)
    for held in (log.items, log.times, log.offsets), (packed.rows, packed.times, packed.offsets):
        assert sum(array.nbytes for array in held) <= 16 * n
        assert all(array.base is None or array.base.nbytes <= 16 * n for array in held)


def reference_core(
    rows: list[Row], min_user_interactions: int, min_item_interactions: int
) -> list[Row]:
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        kept = [
            r
            for r in rows
            if users[r[0]] >= min_user_interactions and items[r[1]] >= min_item_interactions
        ]
        if len(kept) == len(rows):
            return rows
        rows = kept


@settings(deadline=None, derandomize=True)
@given(
    rows=log_rows, min_user_interactions=st.integers(0, 6), min_item_interactions=st.integers(0, 6)
)
def test_the_core_is_that_of_the_reference_implementation(
    log_of: LogOf,
    rows_of: RowsOf,
    rows: list[Row],
    min_user_interactions: int,
    min_item_interactions: int,
) -> None:
    log = log_of(rows)
    expected = reference_core(rows_of(log), min_user_interactions, min_item_interactions)
    if expected:
        core = log.k_core(min_user_interactions, min_item_interactions)
        assert rows_of(core) == expected
        assert set(core.item_ids) == {row[1] for row in expected}
        assert core.duplicates == log.duplicates
    else:
        with pytest.raises(LogError):
            log.k_core(min_user_interactions, min_item_interactions)


def test_an_empty_core_is_rejected_with_the_limits(log_of: LogOf) -> None:
    with pytest.raises(
        LogError, match=r"of 1 users and 3 items none is left .* needs 5 .* item 2;.*lower these"
    ):
        prepare(
            log_of([("only", item, 0.0) for item in "abc"]),
            min_user_interactions=5,
            min_item_interactions=2,
        )
