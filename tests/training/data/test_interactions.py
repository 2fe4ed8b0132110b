"""Interactions, their k-core, and their packing into catalogue rows, judged by plain Python."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.errors import LogError
from training.data.interactions import Interactions
from training.data.item_metadata import ItemDetails
from training.data.packed_log import PackedLog, pack, prepare

Row = tuple[str, str, float]

rows_of_a_log = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "ü3", "u10", "U"]),
        st.sampled_from(["a", "b", "01", "1", "é", "z"]),
        st.integers(0, 5).map(float),
    ),
    min_size=1,
    max_size=60,
)


def of_rows(rows: list[Row]) -> Interactions:
    """Through id tables in order of first appearance, with one id more than occurs."""
    users = [*dict.fromkeys(row[0] for row in rows), "never seen"]
    items = [*dict.fromkeys(row[1] for row in rows), "never taken"]
    return Interactions.from_rows(
        np.array([users.index(row[0]) for row in rows], dtype=np.int32),
        np.array([items.index(row[1]) for row in rows], dtype=np.int32),
        np.array([row[2] for row in rows]),
        np.array(users, dtype=object),
        np.array(items, dtype=object),
    )


def to_rows(log: Interactions) -> list[Row]:
    users = np.repeat(log.user_ids, np.diff(log.offsets))
    return list(zip(users, log.item_ids[log.items], log.times.tolist(), strict=True))


def histories(log: PackedLog, ids: list[str]) -> dict[str, list[str]]:
    return {
        user: [ids[row - 1] for row in log.rows[start:end]]
        for user, start, end in zip(log.user_ids, log.offsets, log.offsets[1:], strict=False)
    }


@settings(deadline=None, derandomize=True)
@given(rows_of_a_log)
def test_rows_are_sorted_by_user_then_time_and_repeated_ones_are_counted(rows: list[Row]) -> None:
    log = of_rows(rows)
    distinct = list(dict.fromkeys(rows))
    assert to_rows(log) == sorted(distinct, key=lambda row: (row[0], row[2]))
    assert log.duplicates == len(rows) - len(distinct)
    assert list(log.user_ids) == sorted({row[0] for row in rows})
    assert list(log.item_ids) == sorted({row[1] for row in rows})


def test_a_log_takes_at_most_16_bytes_an_interaction_beside_its_tables() -> None:
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


def slow_core(rows: list[Row], min_user_interactions: int, min_item_interactions: int) -> list[Row]:
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
@given(rows_of_a_log, st.integers(0, 6), st.integers(0, 6))
def test_the_core_is_that_of_taking_out_until_nothing_changes(
    rows: list[Row], min_user_interactions: int, min_item_interactions: int
) -> None:
    log = of_rows(rows)
    expected = slow_core(to_rows(log), min_user_interactions, min_item_interactions)
    if expected:
        core = log.k_core(min_user_interactions, min_item_interactions)
        assert to_rows(core) == expected
        assert set(core.item_ids) == {row[1] for row in expected}
        assert core.duplicates == log.duplicates
    else:
        with pytest.raises(LogError):
            log.k_core(min_user_interactions, min_item_interactions)


def test_a_core_that_is_empty_says_what_there_was_and_what_was_asked() -> None:
    with pytest.raises(
        LogError, match=r"of 1 users and 3 items none is left .* needs 5 .* item 2;.*lower these"
    ):
        prepare(
            of_rows([("only", item, 0.0) for item in "abc"]),
            min_user_interactions=5,
            min_item_interactions=2,
        )


def test_the_catalogue_has_falling_popularity_ties_by_id_and_what_is_known_of_an_item() -> None:
    rows = [("u", "c", 1.0), ("v", "c", 1.0), ("u", "b", 2.0), ("v", "10", 3.0), ("v", "9", 2.0)]
    details = {"c": ItemDetails("See", "Letters"), "elsewhere": ItemDetails("Unused", None)}
    catalog, packed = prepare(
        of_rows(rows), min_user_interactions=1, min_item_interactions=1, items=details
    )
    assert list(catalog.ids) == ["c", "10", "9", "b"]
    assert catalog.popularity.tolist() == [2, 1, 1, 1]
    assert list(catalog.titles) == ["See", None, None, None]
    assert list(catalog.categories) == ["Letters", None, None, None]
    assert packed.rows.dtype == np.int32
    assert histories(packed, list(catalog.ids)) == {"u": ["c", "b"], "v": ["c", "9", "10"]}
    assert packed.times.tolist() == [1, 2, 1, 2, 3]


def test_packing_against_a_catalogue_leaves_unknown_items_out_and_counts_them() -> None:
    catalog, _ = prepare(
        of_rows([("u", "a", 0.0), ("u", "b", 1.0)]),
        min_user_interactions=1,
        min_item_interactions=1,
    )
    rows = [("x", "b", 1.0), ("x", "new", 2.0), ("x", "a", 3.0), ("y", "new", 1.0), ("z", "a", 5.0)]
    packed = pack(of_rows(rows), catalog)
    assert histories(packed, list(catalog.ids)) == {"x": ["b", "a"], "z": ["a"]}
    assert packed.times.tolist() == [1, 3, 5]
    assert packed.unknown == 2


def test_packing_a_log_of_other_items_is_refused() -> None:
    catalog, _ = prepare(
        of_rows([("u", "a", 0.0)]), min_user_interactions=1, min_item_interactions=1
    )
    with pytest.raises(LogError, match="none of its 1 items is among the catalogue's 1"):
        pack(of_rows([("u", "b", 0.0)]), catalog)


def test_users_can_be_taken_in_any_order_and_none() -> None:
    rows = [("a", "x", 0.0), ("b", "x", 1.0), ("b", "y", 2.0), ("c", "z", 3.0), ("c", "x", 4.0)]
    catalog, packed = prepare(of_rows(rows), min_user_interactions=1, min_item_interactions=1)
    taken = packed.take(np.array([2, 1]))
    assert histories(taken, list(catalog.ids)) == {"c": ["z", "x"], "b": ["x", "y"]}
    assert list(taken.user_ids) == ["c", "b"]
    assert taken.times.tolist() == [3, 4, 1, 2]
    none = packed.take(np.array([], dtype=np.int64))
    assert len(none) == len(none.rows) == 0
    assert none.offsets.tolist() == [0]
