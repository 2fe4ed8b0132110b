"""Times of one log are in one unit, or it is refused."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from training.data.errors import LogError
from training.data.log_options import LogSource
from training.data.readers import read_log

Write = Callable[..., Path]
HEADER = "user_id,item_id,timestamp\n"


@pytest.mark.parametrize(
    ("other", "unit"),
    [
        ("1602391536000", "milliseconds"),
        ("1602391536000000", "microseconds"),
        ("1602391536000000000", "nanoseconds"),
        ("1.602391536e12", "milliseconds"),
    ],
)
@pytest.mark.parametrize("usual", ["1602391500", "2020-10-11T04:45:36Z", "2020-10-11"])
def test_two_units_in_one_log_are_refused_and_named(
    write: Write, usual: str, other: str, unit: str
) -> None:
    rows = "".join(f"u{n},i,{usual}\n" for n in range(50))
    for path in (
        write(f"{HEADER}{rows}v,i,{other}\n"),
        write(gzip.compress(f"{HEADER}{rows}v,i,{other}\n".encode()), "log.csv.gz"),
    ):
        with pytest.raises(
            LogError, match=rf"50 in seconds .*line 2: 1602\d*.*; 1 in {unit} .*line 52: 1602391536"
        ):
            read_log(path)


def test_units_are_compared_across_shards_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.delimited.BLOCK_BYTES", 256)
    rows = "".join(f"u{n},i,{1602391500 + n}\n" for n in range(100))
    (tmp_path / "a.csv").write_text(HEADER + rows)
    (tmp_path / "b.csv").write_text(f"{HEADER}v,i,1602391536000\nw,i,1602391537000\n")
    with pytest.raises(LogError, match=r"100 in seconds .*a\.csv, line 2.* 2 in milli.*b\.csv"):
        read_log(tmp_path)


@pytest.mark.parametrize("times", [(0, 1602391536), (-5, 1602391536), (1, 2), (10**12, 10**13)])
def test_times_that_may_be_of_one_unit_are_read(write: Write, times: tuple[int, int]) -> None:
    path = write(HEADER + "".join(f"u{n},i,{time}\n" for n, time in enumerate(times)))
    assert read_log(path).times.tolist() == list(times)


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
