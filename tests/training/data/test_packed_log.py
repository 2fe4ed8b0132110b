"""Histories packed into catalogue rows."""

from collections.abc import Callable

import numpy as np
import pytest

from training.data.errors import LogError
from training.data.interactions import Interactions
from training.data.item_metadata import ItemDetails
from training.data.packed_log import PackedLog, pack, prepare

LogOf = Callable[[list[tuple[str, str, float]]], Interactions]


def histories(log: PackedLog, ids: list[str]) -> dict[str, list[str]]:
    return {
        user: [ids[row - 1] for row in log.rows[start:end]]
        for user, start, end in zip(log.user_ids, log.offsets, log.offsets[1:], strict=False)
    }


def test_the_catalogue_is_sorted_by_popularity_then_id_and_has_the_item_details(
    log_of: LogOf,
) -> None:
    rows = [("u", "c", 1.0), ("v", "c", 1.0), ("u", "b", 2.0), ("v", "10", 3.0), ("v", "9", 2.0)]
    details = {"c": ItemDetails("See", "Letters"), "elsewhere": ItemDetails("Unused", None)}
    catalog, packed = prepare(
        log_of(rows), min_user_interactions=1, min_item_interactions=1, items=details
    )
    assert list(catalog.ids) == ["c", "10", "9", "b"]
    assert catalog.popularity.tolist() == [2, 1, 1, 1]
    assert list(catalog.titles) == ["See", None, None, None]
    assert list(catalog.categories) == ["Letters", None, None, None]
    assert packed.rows.dtype == np.int32
    assert histories(packed, list(catalog.ids)) == {"u": ["c", "b"], "v": ["c", "9", "10"]}
    assert packed.times.tolist() == [1, 2, 1, 2, 3]


def test_items_that_the_catalogue_lacks_are_left_out_and_counted(log_of: LogOf) -> None:
    catalog, _ = prepare(
        log_of([("u", "a", 0.0), ("u", "b", 1.0)]),
        min_user_interactions=1,
        min_item_interactions=1,
    )
    rows = [("x", "b", 1.0), ("x", "new", 2.0), ("x", "a", 3.0), ("y", "new", 1.0), ("z", "a", 5.0)]
    packed = pack(log_of(rows), catalog)
    assert histories(packed, list(catalog.ids)) == {"x": ["b", "a"], "z": ["a"]}
    assert packed.times.tolist() == [1, 3, 5]
    assert packed.oov_interactions == 2


def test_a_log_without_a_known_item_is_rejected(log_of: LogOf) -> None:
    catalog, _ = prepare(
        log_of([("u", "a", 0.0)]), min_user_interactions=1, min_item_interactions=1
    )
    with pytest.raises(LogError, match="none of its 1 items is among the catalogue's 1"):
        pack(log_of([("u", "b", 0.0)]), catalog)


def test_users_can_be_taken_in_any_order(log_of: LogOf) -> None:
    rows = [("a", "x", 0.0), ("b", "x", 1.0), ("b", "y", 2.0), ("c", "z", 3.0), ("c", "x", 4.0)]
    catalog, packed = prepare(log_of(rows), min_user_interactions=1, min_item_interactions=1)
    taken = packed.take(np.array([2, 1]))
    assert histories(taken, list(catalog.ids)) == {"c": ["z", "x"], "b": ["x", "y"]}
    assert list(taken.user_ids) == ["c", "b"]
    assert taken.times.tolist() == [3, 4, 1, 2]
    none = packed.take(np.array([], dtype=np.int64))
    assert len(none) == len(none.rows) == 0
    assert none.offsets.tolist() == [0]
