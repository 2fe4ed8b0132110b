"""Parquet files and folders of them, read as logs."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from training.data.errors import LogError
from training.data.interactions import Interactions
from training.data.readers import read_log

Row = tuple[str, str, float]
Write = Callable[..., Path]
RowsOf = Callable[[Interactions], list[Row]]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([86400, 86401]),
        pa.array([86400.0, 86401.0]),
        pa.array(["86400", "1970-01-02T00:00:01Z"]),
        pa.array([86_400_000, 86_401_000], pa.timestamp("ms")),
        pa.array([86_400 * 10**9, 86_401 * 10**9], pa.timestamp("ns", "Europe/Paris")),
    ],
    ids=lambda times: str(times.type),
)
@pytest.mark.parametrize(
    "arrow_type", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_column_types(
    tmp_path: Path, times: pa.Array, arrow_type: pa.DataType, rows_of: RowsOf, write_parquet: Write
) -> None:
    users = pa.array(["ann", "ann"]).cast(arrow_type)
    path = write_parquet(
        tmp_path / "log", user_id=users, item_id=pa.array([7, -8]), timestamp=times
    )
    assert rows_of(read_log(path)) == [("ann", "7", 86400), ("ann", "-8", 86401)]


def test_dates_are_timestamps(tmp_path: Path, rows_of: RowsOf, write_parquet: Write) -> None:
    days = pa.array([datetime(1970, 1, 2).date()])
    path = write_parquet(tmp_path / "log", user_id=["ann"], item_id=["x"], timestamp=days)
    assert rows_of(read_log(path)) == [("ann", "x", 86400)]


def test_a_folder_of_parquet_files_is_one_log(
    tmp_path: Path, rows_of: RowsOf, write_parquet: Write
) -> None:
    for day, user in (1, "ann"), (2, "bob"):
        folder = tmp_path / f"date=2026-01-0{day}"
        write_parquet(folder / "part-0.parquet", user_id=[user], item_id=["x"], timestamp=[day])
    write_parquet(tmp_path / "empty.parquet", user_id=[""][:0], item_id=[""][:0], timestamp=[1][:0])
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-1.parquet").write_bytes(b"half")
    (tmp_path / "_temporary").mkdir()
    (tmp_path / "_temporary" / "part-2.parquet").write_bytes(b"half")
    assert rows_of(read_log(tmp_path)) == [("ann", "x", 1), ("bob", "x", 2)]


def test_a_hidden_parent_folder_hides_nothing(tmp_path: Path, write_parquet: Write) -> None:
    write_parquet(tmp_path / ".log" / "a.parquet", user_id=["ann"], item_id=["x"], timestamp=[1])
    assert len(read_log(tmp_path / ".log")) == 1


def test_a_bad_value_in_a_folder_is_located(tmp_path: Path, write_parquet: Write) -> None:
    write_parquet(tmp_path / "a" / "1.parquet", user_id=["ann"], item_id=["x"], timestamp=[1])
    two = {"user_id": ["ann", None], "item_id": ["x", "x"], "timestamp": [1, 2]}
    write_parquet(tmp_path / "b" / "2.parquet", **two)
    with pytest.raises(LogError, match=r"b/2\.parquet, row 2: no user id"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user_id", pa.array([1.0]), "user id is of type double; it must be text or an integer"),
        ("item_id", pa.array([["x"]]), "item id is of type list"),
        ("timestamp", pa.array([[1]]), "timestamp is of type list"),
        ("timestamp", pa.array([None], pa.int64()), "no timestamp"),
        ("timestamp", pa.array([float("nan")]), "timestamp nan is not finite"),
        ("weight", pa.array([float("inf")]), "weight inf; it must be finite"),
    ],
    ids=str,
)
def test_bad_values_are_located(
    tmp_path: Path, column: str, values: pa.Array, message: str, write_parquet: Write
) -> None:
    columns = {"user_id": ["ann"], "item_id": ["x"], "timestamp": [1], column: values}
    with pytest.raises(LogError, match=f"row 1: {message}"):
        read_log(write_parquet(tmp_path / "log.parquet", **columns))


def test_a_file_that_is_not_parquet_is_rejected(
    tmp_path: Path, write: Write, write_parquet: Write
) -> None:
    with pytest.raises(LogError, match="not a Parquet file"):
        read_log(write("user_id,item_id,timestamp\na,b,1\n", "log.parquet"))
    whole = write_parquet(tmp_path / "whole.parquet", user_id=["a"], item_id=["b"], timestamp=[1])
    with pytest.raises(LogError, match="not a Parquet file, or a damaged one"):
        read_log(write(whole.read_bytes()[:-20], "cut.parquet"))
    (tmp_path / "none").mkdir()
    with pytest.raises(LogError, match=r"a folder without a \.parquet file"):
        read_log(tmp_path / "none")
    with pytest.raises(LogError, match=r"no column 'timestamp' among user_id, item_id, ts"):
        read_log(write_parquet(tmp_path / "ts.parquet", user_id=["a"], item_id=["b"], ts=[1]))


def test_a_file_without_rows_is_rejected(tmp_path: Path, write_parquet: Write) -> None:
    none = {name: pa.array([], pa.string()) for name in ("user_id", "item_id", "timestamp")}
    with pytest.raises(LogError, match="no interactions"):
        read_log(write_parquet(tmp_path / "none.parquet", **none))
