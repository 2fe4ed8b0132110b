"""Interactions that a later one takes back: by themselves, in a log, and in a nightly window."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.errors import LogError
from training.data.event_window import DAY_S, read_window
from training.data.interactions import Interactions
from training.data.log_options import LogOptions, LogSource
from training.data.readers import read_log
from training.data.undone import undone

Write = Callable[..., Path]
Rows = Callable[[Interactions], list[tuple[str, str, float]]]
Row = tuple[int, int, float, bool]  # user, item, time, whether it takes another back

HEADER = "user_id,item_id,timestamp,event\n"
ROWS = st.lists(
    st.tuples(
        *(st.integers(0, 2), st.integers(0, 2)),
        *(st.sampled_from([0.0, 1.0, 2.0, 3.5, 4.0]), st.booleans()),
    ),
    max_size=20,
)


def one_by_one(rows: list[Row]) -> list[bool]:
    taken: set[Row] = set()
    for row in sorted({row for row in rows if row[3]}):
        user, item, time, _ = row
        earlier = {(user, item, moment, False) for moment in {r[2] for r in rows} if moment <= time}
        if found := (earlier & {*rows}) - taken:
            taken.add(max(found))
    return [row[3] or row in taken for row in rows]


@given(rows=ROWS)
def test_each_takes_the_newest_that_is_not_taken_yet(rows: list[Row]) -> None:
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    kinds = (np.int32, np.int32, np.float64, bool)
    arrays = [np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    assert undone(*arrays).tolist() == one_by_one(rows)


@pytest.mark.usefixtures("both_engines")
def test_a_log_is_read_without_what_was_returned_shown_or_disliked(
    write: Write, rows_of: Rows
) -> None:
    path = write(
        f"{HEADER}u,a,1,view\nu,a,2,buy\nu,b,3,impression\nu,a,4,return\nu,c,5,\n"
        "u,d,6,dislike\nv,a,4,buy\nw,e,1,buy\nw,e,2,return\n"
    )
    log = read_log(path)
    assert rows_of(log) == [("u", "a", 1), ("u", "c", 5), ("v", "a", 4)]
    assert [*log.user_ids] == ["u", "v"], "nothing is left of w, and of e"
    assert [*log.item_ids] == ["a", "c"]
    assert log.duplicates == 0


@pytest.mark.usefixtures("both_engines")
def test_the_effects_are_a_setting(write: Write, rows_of: Rows) -> None:
    path = write(f"{HEADER}u,a,1,buy\nu,a,2,return\nu,b,3,impression\nu,c,4,buy\n")
    kept = LogSource(event_effects=("return=history", "impression=history"))
    assert [item for _, item, _ in rows_of(read_log(path, source=kept))] == ["a", "a", "b", "c"]
    bought = read_log(path, events=["buy"])
    assert [item for _, item, _ in rows_of(bought)] == ["a", "c"], "returns are filtered out"


@pytest.mark.usefixtures("both_engines")
def test_weights_stay_with_their_interactions(write: Write) -> None:
    path = write(f"{HEADER}u,a,1,view\nu,a,1,buy\nu,b,2,buy\nu,b,3,return\nu,c,4,view\n")
    log = read_log(path, source=LogSource(event_weights=("view=0.25", "buy=2")))
    assert log.weights is not None
    assert log.weights.tolist() == [2, 0.25]


@pytest.mark.usefixtures("both_engines")
def test_a_log_of_returned_items_is_empty(write: Write) -> None:
    path = write(f"{HEADER}u,a,1,buy\nu,a,2,return\n")
    with pytest.raises(LogError, match="each interaction is taken back by a later one"):
        read_log(path)
    shown = write(f"{HEADER}u,a,1,impression\n")
    with pytest.raises(LogError, match="an event type that enters histories; relax"):
        read_log(shown)


def test_effects_are_given_as_text_parts_or_a_table() -> None:
    for given_effects in ("return=none", ("return=none",), {"return": "none"}):
        source = LogSource.model_validate({"event_effects": given_effects})
        assert source.event_kinds.effect("return") == "none"
        assert LogSource.model_validate(source.model_dump()) == source
    assert LogSource.model_validate({"event_effects": "return=undo"}) == LogSource()
    with pytest.raises(ValueError, match="'view' is not KIND=EFFECT"):
        LogSource.model_validate({"event_effects": "view"})


def test_a_window_is_without_what_its_events_take_back(
    tmp_path: Path, write_parquet: Write
) -> None:
    log = tmp_path / "base.csv"
    log.write_text("user_id,item_id,timestamp\nu,a,86400\nu,b,86500\nv,a,86400\n")
    rows = [
        *(("u", "a", 2.0, "return"), ("u", "c", 3.0, "purchase"), ("u", "c", 2.5, "return")),
        *(("v", "c", 3.0, "impression"), ("v", "d", 3.0, "dislike"), ("v", "e", 9.0, "return")),
        ("v", "e", 4.0, "purchase"),
    ]
    users, items, days, kinds = zip(*rows, strict=True)
    write_parquet(
        tmp_path / "events/date=1970-01-03/part.parquet",
        user_id=users, item_id=items, timestamp=[day * DAY_S for day in days], event=kinds,
    )  # fmt: skip
    window = read_window(tmp_path / "events", log, LogOptions(), (), None, 8 * DAY_S)
    left = [(row["user_id"], row["item_id"]) for row in window.rows.to_pylist()]
    assert left == [("v", "a"), ("u", "b"), ("u", "c"), ("v", "e")], "one return is of tomorrow"
    counts = window.counts
    assert (counts["of_other_kinds"], counts["undone"], counts["after_the_window"]) == (2, 3, 1)
