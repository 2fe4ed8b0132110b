"""Units that are named, times of shards, and the spellings of times."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from training.data.errors import LogError
from training.data.log_options import LogSource
from training.data.readers import read_log

Write = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("both_engines")
HEADER = "user_id,item_id,timestamp\n"


def test_units_are_compared_across_shards(tmp_path: Path) -> None:
    rows = "".join(f"u{n},i,{1602391500 + n}\n" for n in range(100))
    (tmp_path / "a.csv").write_text(HEADER + rows)
    (tmp_path / "b.csv").write_text(f"{HEADER}v,i,1602391536000\nw,i,1602391537000\n")
    with pytest.raises(
        LogError,
        match=r"b\.csv, line 2: timestamp 1602391536000 is in milliseconds, and",
    ):
        read_log(tmp_path)


def test_a_few_times_of_another_unit_or_in_the_future_may_be_skipped(write: Write) -> None:
    rows = "".join(f"u{n},i,{1602391500 + n}\n" for n in range(100))
    path = write(f"{HEADER}{rows}v,i,1602391536000\nw,i,1602391537000\nx,i,4102444800\n")
    assert len(read_log(path, source=LogSource(skip_bad_rows=3))) == 100
    with pytest.raises(LogError, match=r"line 102: .*line 103: .*line 104: .*in the future"):
        read_log(path, source=LogSource(skip_bad_rows=2))


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
def test_a_unit_that_is_named_becomes_seconds(
    write: Write, unit: Literal["s", "ms", "us", "ns"], factor: float
) -> None:
    path = write(f"{HEADER}a,x,{1602391536 * factor:.0f}\nb,x,2020-10-11T04:45:36Z\n")
    assert read_log(path, source=LogSource(time_unit=unit)).times.tolist() == [1602391536] * 2


@pytest.mark.parametrize(
    "text",
    [
        "2020-10-11 04:45:36 UTC",
        "2020-10-11 04:45:36 GMT",
        "2020-10-11 04:45:36Z",
        "2020-10-11 04:45:36 Z",
        "2020-10-11 06:45:36 +0200",
        "2020-10-11T06:45:36 +02:00",
        "2020/10/11 04:45:36",
        " 2020-10-11 04:45:36 ",
        "2020-10-11 04:45:36.000 UTC",
    ],
)
def test_other_spellings_of_times(write: Write, text: str) -> None:
    path = write(f"{HEADER}a,x,{text}\nb,x,2020-10-11 04:45:36\nc,x,1602391536\n")
    assert read_log(path).times.tolist() == [1602391536] * 3


@pytest.mark.parametrize("text", ["11/10/2020 04:45:36", "2020-10-11 04:45:36 CEST"])
def test_times_of_which_day_or_zone_is_unclear_are_refused(write: Write, text: str) -> None:
    with pytest.raises(LogError, match="line 2: timestamp"):
        read_log(write(f"{HEADER}a,x,{text}\n"))
