"""The training window: which rows it has, and which are left out for which reason."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.array_store import SpillFolder
from training.data.errors import LogError
from training.data.event_window import DAY_S, Window, read_window, write_window
from training.data.log_options import LogOptions
from training.data.readers import read_log
from training.data.window_rows import DatabaseWindow

END = 100 * DAY_S


@pytest.fixture(autouse=True, params=["memory", "duckdb"])
def engine(request, monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> None:
    """Each test runs with both engines; in DuckDB with few rows in a partition."""
    if request.param == "memory":
        return
    pytest.importorskip("duckdb")
    folder = tmp_path_factory.mktemp("spill")
    monkeypatch.setattr("training.data.window_rows._PARTITION_BYTES", 1 << 28)
    monkeypatch.setattr(
        "training.data.event_window.open_window",
        lambda *_: DatabaseWindow(SpillFolder(folder), 1 << 29),
    )


def export(folder: Path, day: int, *rows: tuple[Any, ...], name: str = "part-0.parquet") -> Path:
    """Rows of user, item, time in days, event, event id, under the date of that day."""
    date = folder / f"date=1970-{1 + day // 31:02}-{1 + day % 31:02}"
    date.mkdir(parents=True, exist_ok=True)
    users, items, days, events, ids = zip(*rows, strict=True)
    columns = {
        "user_id": pa.array(users, pa.string()),
        "item_id": pa.array(items, pa.string()),
        "timestamp": pa.array([day * DAY_S for day in days], pa.float64()),
        "event": pa.array(events, pa.string()),
        "event_id": pa.array(ids, pa.string()),
    }
    pq.write_table(pa.table(columns), date / name)
    return date / name


def read(
    events: Path,
    log: Path | None = None,
    event_types: tuple[str, ...] = (),
    days: float | None = None,
    until: float = END,
) -> Window:
    return read_window(events, log, LogOptions(), event_types, days, until)


def kept(window: Window) -> list[tuple[str, str]]:
    return [(row["user_id"], row["item_id"]) for row in window.rows.to_pylist()]


def test_rows_are_in_order_of_time_and_the_base_comes_first(tmp_path):
    log = tmp_path / "base.csv"
    log.write_text("user_id,item_id,timestamp\nu,a,86400\nu,b,259200\n")
    export(tmp_path / "events", 2, ("u", "c", 2.0, None, "1"), ("v", "d", 3.0, "buy", "2"))
    window = read(tmp_path / "events", log)
    assert kept(window) == [("u", "a"), ("u", "c"), ("u", "b"), ("v", "d")]
    assert window.counts["base"] == window.counts["events"] == 2


def test_an_event_id_counts_once_and_all_events_without_one_count(tmp_path):
    row = ("u", "a", 1.0, None, "same")
    export(tmp_path, 1, row, ("u", "b", 1.0, None, None), ("u", "c", 1.0, None, None))
    export(tmp_path, 2, row, ("v", "d", 2.0, None, "same"))  # another user's own "same"
    window = read(tmp_path)
    assert kept(window) == [("u", "a"), ("u", "b"), ("u", "c"), ("v", "d")]
    assert window.counts["sent_twice"] == 1


def test_a_tombstone_deletes_all_earlier_rows_of_its_user(tmp_path):
    log = tmp_path / "base.csv"
    log.write_text("user_id,item_id,timestamp\nu,a,86400\nv,a,86400\n")
    events = tmp_path / "events"
    export(events, 2, ("u", "b", 2.0, None, "1"), ("u", "future", 9.0, None, "2"))
    export(events, 3, ("u", None, 3.0, "forget", "3"), ("u", "late", 2.5, None, "4"))
    export(events, 4, ("u", "after", 4.0, None, "5"))
    window = read(events, log)
    assert kept(window) == [("v", "a"), ("u", "after")]
    assert window.counts["forgotten"] == 4
    assert window.counts["events"] == 4  # the tombstone is not counted


def test_a_tombstone_deletes_all_earlier_entries_of_the_stream_whatever_their_time(tmp_path):
    """A file of a later date may have earlier entries."""
    hour = 1_764_000_000_000
    tombstone = export(tmp_path, 3, ("u", None, 3.0, "forget", None), ("v", "x", 3.0, None, None))
    later_date = export(
        tmp_path, 9, ("u", "before", 9.0, None, "1"), ("u", "after", 9.0, None, "2")
    )
    no_stream = export(tmp_path, 10, ("u", "without entry", 10.0, None, "3"))
    for path, entries in (
        (tombstone, [f"{hour}-2", f"{hour}-3"]),
        (later_date, [f"{hour}-1", f"{hour}-10"]),
        (no_stream, ["none"]),
    ):
        table = pq.read_table(path)
        pq.write_table(table.append_column("entry", pa.array(entries)), path)
    assert kept(read(tmp_path, until=20 * DAY_S)) == [
        *(("v", "x"), ("u", "after"), ("u", "without entry")),
    ]


def test_event_types_filter_only_the_event_files(tmp_path):
    log = tmp_path / "base.csv"
    log.write_text("user_id,item_id,timestamp\nu,a,86400\n")
    rows = [("u", "b", 2.0, "view", "1"), ("u", "c", 2.0, "buy", "2"), ("u", "d", 2.0, None, "3")]
    export(tmp_path / "events", 2, *rows)
    window = read(tmp_path / "events", log, event_types=("buy",))
    assert kept(window) == [("u", "a"), ("u", "c")]
    assert window.counts["of_other_kinds"] == 2


def test_event_types_that_no_event_has_are_refused(tmp_path, caplog) -> None:
    log = tmp_path / "base.csv"
    log.write_text("user_id,item_id,timestamp\nu,a,86400\n")
    events = tmp_path / "events"
    export(events, 2, ("u", "b", 2.0, "view", "1"), ("u", "c", 2.0, "purchase", "2"))
    with pytest.raises(LogError, match=r"0 of 2 events .*purchse.*they are purchase, view"):
        read(events, log, event_types=("purchse",))
    assert kept(read(events, log, event_types=("purchse", "view"))) == [("u", "a"), ("u", "b")]
    (message,) = caplog.messages
    assert "event type 'purchse': none of 2 events has it" in message


def test_files_beside_their_date_folders_are_refused_or_reported(tmp_path, caplog) -> None:
    export(tmp_path, 1, ("u", "a", 1.0, None, "1"))
    stray = export(tmp_path, 2, ("u", "b", 2.0, None, "2")).rename(tmp_path / "part-1.parquet")
    assert kept(read(tmp_path)) == [("u", "a")]
    (message,) = caplog.messages
    assert "1 of 2 files are in date=YYYY-MM-DD folders and Parquet" in message
    assert str(stray) in message
    shutil.rmtree(tmp_path / "date=1970-01-02")
    with pytest.raises(LogError, match="0 of 1 files are in date=YYYY-MM-DD folders and Parquet"):
        read(tmp_path)


def test_a_base_log_that_lies_before_the_window_is_reported(tmp_path, caplog) -> None:
    log = tmp_path / "base.csv"
    log.write_text("user_id,item_id,timestamp\nu,a,86400\nu,b,86400\n")
    export(tmp_path / "events", 50, ("u", "c", 50.0, None, "1"))
    assert kept(read(tmp_path / "events", log, days=10)) == [("u", "c")]
    (message,) = caplog.messages
    assert "0 of 2 interactions of the log are in the window" in message


def test_events_of_other_items_than_the_base_log_are_refused(tmp_path) -> None:
    log = tmp_path / "base.csv"
    rows = "".join(f"u,i{n},{86400 + n}\n" for n in range(30))
    log.write_text(f"user_id,item_id,timestamp\n{rows}")
    export(tmp_path / "events", 2, *(("u", f"I{n}", 2.0, None, str(n)) for n in range(30)))
    with pytest.raises(LogError, match=r"0 of 30 items .*'I0'"):
        read(tmp_path / "events", log)


def test_the_window_ends_before_until_and_begins_days_before_its_last_event(tmp_path):
    days = {"a": 1.0, "b": 4.0, "c": 6.0, "d": 7.0}
    rows = [("u", name, day, None, name) for name, day in days.items()]
    export(tmp_path, 1, *rows)
    window = read(tmp_path, days=2, until=7 * DAY_S)
    assert kept(window) == [("u", "b"), ("u", "c")]
    assert window.counts["after_the_window"] == window.counts["before_the_window"] == 1


NOW = 1_767_225_600.0  # 2026-01-01


def base_log(tmp_path: Path, moment: float) -> Path:
    log = tmp_path / "base.csv"
    log.write_text(f"user_id,item_id,timestamp\nu,a,{moment:.0f}\nu,b,{moment + 1:.0f}\n")
    return log


@pytest.mark.parametrize(
    ("base", "events", "message"),
    [
        (NOW * 1000, NOW, r"base\.csv: .* in milliseconds.*in seconds.* by 1,000"),
        (NOW * 1000, NOW * 1000, r"base\.csv: .* in milliseconds"),
        (NOW, NOW * 1000, r"events: .* in milliseconds"),
        (NOW, NOW * 10**6, r"events: .* in microseconds"),
        (NOW / DAY_S, NOW, r"base\.csv: .*2045.* not .*Unix seconds"),
        (NOW, NOW / DAY_S, r"events: .*2045.* not .*Unix seconds"),
    ],
)
def test_base_log_and_events_in_different_units_are_refused(
    tmp_path: Path, base: float, events: float, message: str
) -> None:
    row = ("u", "c", events / DAY_S, None, "1")
    export(tmp_path / "events", 2, row, ("v", *row[1:]), ("w", *row[1:]))
    with pytest.raises(LogError, match=message):
        read(tmp_path / "events", base_log(tmp_path, base), until=NOW + 10)


def test_a_few_events_in_the_future_are_left_out_with_a_warning(
    tmp_path, caplog, monkeypatch
) -> None:
    monkeypatch.setattr("training.data.window_checks.time.time", lambda: NOW + 10)
    rows = [(f"u{n}", "c", NOW / DAY_S, None, str(n)) for n in range(8)]
    wrong = [("v", "d", 1000 * NOW / DAY_S, None, "x"), ("w", "d", 47_117.0, None, "y")]
    export(tmp_path / "events", 2, *rows, *wrong)
    window = read(tmp_path / "events", base_log(tmp_path, NOW - DAY_S), until=NOW + 10)
    assert window.counts["after_the_window"] == 2
    assert len(window.rows) == 10
    (message,) = caplog.messages
    assert "2 of 10 events are later than the end of the window" in message
    assert "milliseconds" in message


def test_unfinished_files_are_not_read(tmp_path):
    export(tmp_path, 1, ("u", "a", 1.0, None, "1"))
    export(tmp_path, 1, ("u", "b", 1.0, None, "2"), name=".part-1.parquet")
    assert kept(read(tmp_path)) == [("u", "a")]


def test_arrow_timestamps_become_seconds(tmp_path):
    path = export(tmp_path, 1, ("u", "a", 1.0, None, "1"))
    table = pq.read_table(path)
    moments = pa.array([1_500_000], pa.timestamp("ms", "UTC"))
    pq.write_table(table.set_column(2, "timestamp", moments), path)
    assert read(tmp_path).rows["timestamp"].to_pylist() == [1500.0]


def test_a_missing_folder_has_no_events(tmp_path):
    assert read(tmp_path / "none").counts["kept"] == 0


def test_a_file_that_lacks_a_column_or_a_value_is_named(tmp_path):
    path = export(tmp_path, 1, ("u", "a", 1.0, None, "1"), ("u", None, 1.0, None, "2"))
    with pytest.raises(LogError, match=r"part-0.parquet, row 2: user_id and item_id"):
        read(tmp_path)
    pq.write_table(pq.read_table(path).drop_columns(["item_id"]), path)
    with pytest.raises(LogError, match="no column 'item_id'"):
        read(tmp_path)
    path.write_bytes(b"PAR1")
    with pytest.raises(LogError, match="not a Parquet file"):
        read(tmp_path)


def test_event_types_are_kept_if_they_have_weights(tmp_path, caplog):
    log = tmp_path / "base.csv"
    log.write_text("user_id,item_id,timestamp,event\nu,a,86400,view\nv,a,86400,forget\n")
    events = tmp_path / "events"
    export(events, 2, ("u", "b", 2.0, "buy", "1"), ("u", "c", 2.0, None, "2"))
    options = LogOptions(event_weights=("view=0.2", "buy=2", "cart=1"))
    window = read_window(events, log, options, (), None, END)
    assert [(row["item_id"], row["event"]) for row in window.rows.to_pylist()] == [
        *(("a", "view"), ("a", "forget"), ("b", "buy"), ("c", None))
    ]
    assert "'cart': none of 4 interactions has it; they are buy, forget, view" in caplog.text
    write_window(window, tmp_path / "window.parquet")
    read_back = read_log(tmp_path / "window.parquet", "parquet", source=options)
    expected = {("a", 86400.0): [0.2, 1.0], ("b", 172800.0): [2.0], ("c", 172800.0): [1.0]}
    assert read_back.weights is not None
    pairs = zip(read_back.item_ids[read_back.items], read_back.times.tolist(), strict=True)
    got: dict[tuple[str, float], list[float]] = {}
    for pair, weight in zip(pairs, read_back.weights.tolist(), strict=True):
        got.setdefault(pair, []).append(pytest.approx(weight))
    assert got == expected
    assert read(events, log).rows.column_names == ["user_id", "item_id", "timestamp"]


def test_weights_of_event_types_that_nothing_has_are_refused(tmp_path) -> None:
    log = tmp_path / "base.csv"
    log.write_text("user_id,item_id,timestamp\nu,a,86400\n")
    events = tmp_path / "events"
    export(events, 2, ("u", "b", 2.0, "view", "1"))
    options = LogOptions(event_weights=("veiw=0.2",))
    with pytest.raises(LogError, match=r"0 of 1 interactions .*veiw.*they are view; correct event"):
        read_window(events, None, options, (), None, END)
    with pytest.raises(LogError, match=r"base\.csv: no event types for event_weights"):
        read_window(events, log, options, (), None, END)
