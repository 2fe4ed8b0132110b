"""The unit of a log's times: one for the whole log, and no time in the future."""

import time

import pytest

from training.data.errors import LogError
from training.data.readers import read_log
from training.data.time_units import to_seconds, unit_of

HEADER = "user_id,item_id,timestamp\n"


@pytest.mark.parametrize(
    ("moment", "unit"),
    [
        (0.0, None),
        (18_500.0, None),  # days, or a number in a sequence
        (1_602_391_536.0, "seconds"),
        (4_070_908_800.0, "seconds"),  # the year 2099
        (1_602_391_536_000.0, "milliseconds"),
        (1_602_391_536_000_000.0, "microseconds"),
        (1_602_391_536_000_000_000.0, "nanoseconds"),
    ],
)
def test_the_unit_is_told_by_the_size_of_the_number(moment: float, unit: str | None) -> None:
    assert unit_of(moment) == unit
    if unit and unit != "seconds":
        assert to_seconds(moment) == 1_602_391_536.0


@pytest.mark.parametrize("moment", [5.0, 1_602_391_536.0, 1_602_391_536_000.0])
def test_a_log_of_one_unit_is_read_as_it_is(write, moment: float) -> None:
    log = read_log(write(f"{HEADER}u,a,{moment:.0f}\nu,b,{moment + 1:.0f}\n"))
    assert log.times.tolist() == [moment, moment + 1]


def test_two_units_in_one_log_are_named_with_the_line(write) -> None:
    path = write(f"{HEADER}u,a,1602391536\nu,b,1602391537\nu,c,1602391538000\n")
    with pytest.raises(LogError) as refused:
        read_log(path)
    text = str(refused.value)
    assert text.startswith(f"{path}, line 4: timestamp 1602391538000 is in milliseconds")
    assert "1602391536 is in seconds" in text


def test_two_units_far_apart_in_one_log_are_noticed(write, monkeypatch) -> None:
    """The two are in different blocks of the file."""
    monkeypatch.setattr("training.data.delimited.BLOCK_BYTES", 100)
    rows = "".join(f"u,item-{n},{1602391536 + n}\n" for n in range(30))
    with pytest.raises(LogError, match="line 32: timestamp 1602391538000000 is in microseconds"):
        read_log(write(f"{HEADER}{rows}u,c,1602391538000000\n"))


@pytest.mark.parametrize("factor", [1, 1000])
def test_a_row_in_the_future_is_named(write, factor: int) -> None:
    path = write(f"{HEADER}u,a,{1602391536 * factor}\nu,b,{4070908800 * factor}\n")
    with pytest.raises(LogError, match=r"line 3: timestamp .* is 2099-01-01 .*in the future"):
        read_log(path)
    tomorrow = int(time.time() + 3600) * factor  # the clock of another machine
    assert len(read_log(write(f"{HEADER}u,a,{1602391536 * factor}\nu,b,{tomorrow}\n"))) == 2


def test_a_date_in_the_future_is_named(write) -> None:
    path = write(f"{HEADER}u,a,2020-10-11\nu,b,2099-01-01T00:00:00Z\n")
    with pytest.raises(LogError, match=r"line 3: timestamp .* is 2099-01-01"):
        read_log(path)
