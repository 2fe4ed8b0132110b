"""Bad rows are skipped if they may be, and users who are robots are named and cut."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.errors import LogError
from training.data.interactions import Interactions
from training.data.log_options import LogSource
from training.data.readers import read_log

Row = tuple[str, str, float]
Write = Callable[..., Path]
Caplog = pytest.LogCaptureFixture
RowsOf = Callable[[Interactions], list[Row]]

BAD_CSV = (
    "user_id,item_id,timestamp,weight\n"
    "a,x,1,1\na,y\n,x,2,1\nb,x,noon,1\nb,x,3,1\nb,y,4,nan\n\nc,x,5,1,9\nc,y,6,\n"
)
GOOD = [("a", "x", 1), ("b", "x", 3), ("c", "y", 6)]


def test_bad_rows_are_skipped_counted_and_shown(
    write: Write, rows_of: RowsOf, caplog: Caplog
) -> None:
    path = write(BAD_CSV)
    log = read_log(path, source=LogSource(skip_bad_rows=5))
    assert rows_of(log) == GOOD
    [text] = caplog.messages
    assert f"{path}: 5 bad rows skipped, of 5 allowed; the first: " in text
    assert "line 3: 2 fields where 4 are needed" in text
    assert "line 9: 5 fields where 4 are needed" in text
    assert "line 7: weight nan" in text


@pytest.mark.parametrize("allowed", [1, 2, 3, 4])
def test_more_bad_rows_than_allowed_are_refused(write: Write, allowed: int) -> None:
    with pytest.raises(
        LogError, match=rf"more than {allowed} bad rows.* raise --skip-bad-rows; .*line 3: 2 fields"
    ):
        read_log(write(BAD_CSV), source=LogSource(skip_bad_rows=allowed))


def test_no_bad_row_is_skipped_by_default(write: Write) -> None:
    with pytest.raises(LogError, match="line 3: 2 fields where 4 are needed; correct or remove"):
        read_log(write(BAD_CSV))


def test_bad_lines_of_json_are_skipped(write: Write, rows_of: RowsOf, caplog: Caplog) -> None:
    line = '{{"user_id": "{}", "item_id": "{}", "timestamp": {}}}\n'
    lines = [line.format(*row) for row in GOOD]
    bad = ["{\n", "[1]\n", line.format("a", "x", '"noon"'), line.format("", "x", 7)]
    path = write("".join([*bad[:1], *lines, *bad[1:]]), "log.json")
    log = read_log(path, "json", source=LogSource(skip_bad_rows=4))
    assert re.search("4 bad rows skipped.*line 1: not JSON .*line 5: not a", caplog.text)
    assert rows_of(log) == GOOD
    with pytest.raises(LogError, match="more than 3 bad rows"):
        read_log(path, "json", source=LogSource(skip_bad_rows=3))


def test_bad_rows_of_parquet_are_skipped(
    tmp_path: Path, write_parquet: Write, rows_of: RowsOf, caplog: Caplog
) -> None:
    path = write_parquet(
        tmp_path / "log.parquet",
        user_id=["a", None, "b", "c"],
        item_id=["x", "x", "x", "y"],
        timestamp=[1.0, 2.0, 3.0, float("nan")],
    )
    assert rows_of(read_log(path, source=LogSource(skip_bad_rows=9))) == GOOD[:2]
    assert re.search("2 bad rows skipped.*row 2: no user id.*row 4: timestamp", caplog.text)


def test_many_bad_rows_are_found_quickly(write: Write, caplog: Caplog) -> None:
    rows = (f"u{n % 50},i,{n if n % 3 else 'noon'}\n" for n in range(30_000))
    path = write("user_id,item_id,timestamp\n" + "".join(rows))
    assert len(read_log(path, source=LogSource(skip_bad_rows=10_000))) == 20_000
    assert "10,000 bad rows skipped" in caplog.text


def with_robot(write: Write, clicks: int = 300) -> Path:
    people = (f"u{n % 100},i{n % 17},{n}\n" for n in range(1000))
    robot = (f"bot,r{n},{n}\n" for n in range(clicks))
    return write("".join(["user_id,item_id,timestamp\n", *people, *robot]))


def test_a_user_with_much_of_the_log_is_told(write: Write, caplog: Caplog) -> None:
    read_log(with_robot(write))
    assert re.search("1 of 101 users .* 1,300 .* 300, .*median user has 10", caplog.text)
    caplog.clear()
    read_log(with_robot(write), source=LogSource(max_user_interactions=12))
    assert caplog.text == ""


def test_the_newest_interactions_of_a_user_are_kept(write: Write, rows_of: RowsOf) -> None:
    log = read_log(with_robot(write), source=LogSource(max_user_interactions=12))
    rows = rows_of(log)
    assert [row for row in rows if row[0] == "bot"] == [
        ("bot", f"r{n}", n) for n in range(288, 300)
    ]
    assert len(rows) == 1012
    assert len(log.item_ids) == 17 + 12
    five = read_log(with_robot(write), source=LogSource(max_user_interactions=5))
    assert len(five) == 505
    assert set(rows_of(five)) <= set(rows)
