"""Timestamps and weights of every spelling, and bad ones, which are located."""

import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from training.data.errors import LogError
from training.data.interactions import Interactions
from training.data.readers import read_log

Row = tuple[str, str, float]
Write = Callable[..., Path]
RowsOf = Callable[[Interactions], list[Row]]

MOMENT = datetime(2024, 2, 29, 12, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1709209815", MOMENT),
        ("1709209815.25", MOMENT + timedelta(seconds=0.25)),
        ("1.709209815e9", MOMENT),
        ("2024-02-29T12:30:15Z", MOMENT),
        ("2024-02-29T12:30:15", MOMENT),
        ("2024-02-29 12:30:15.250", MOMENT + timedelta(seconds=0.25)),
        ("2024-02-29T12:30:15+02:00", MOMENT.replace(tzinfo=timezone(timedelta(hours=2)))),
        ("2024-02-29T12:30:15-0530", MOMENT.replace(tzinfo=timezone(timedelta(hours=-5.5)))),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
        ("-86400", datetime(1969, 12, 31, tzinfo=UTC)),
    ],
)
def test_timestamps_are_parsed(write: Write, text: str, moment: datetime, rows_of: RowsOf) -> None:
    # Also next to timestamps of other types, as in a merged log.
    others = "u,i,1\nu,i,2001-01-01T00:00:00Z\nu,i,2002-02-02\n"
    alone = write(f"user_id,item_id,timestamp\nann,x,{text}\n", "alone.csv")
    mixed = write(f"user_id,item_id,timestamp\n{others}ann,x,{text}\n", "mixed.csv")
    assert read_log(alone).times.tolist() == [moment.timestamp()]
    assert rows_of(read_log(mixed))[0] == ("ann", "x", moment.timestamp())


def test_a_timestamp_that_is_not_utf8_is_rejected(write: Write) -> None:
    with pytest.raises(LogError, match="line 2: timestamp '2\ufffd' is not UTF-8"):
        read_log(write(b"user_id,item_id,timestamp\na,b,2\xff\n"))


def test_a_bad_timestamp_is_located_by_its_line_in_the_file(write: Write) -> None:
    rows = (
        'note,user_id,item_id,timestamp\n"two\nlines",a,b,1\n\n,a,b,2\n\n\n,a,b,yesterday\n,a,b,3\n'
    )
    for path in write(rows), write(gzip.compress(rows.encode()), "log.csv.gz"):
        with pytest.raises(
            LogError, match=r"log\.csv.*, line 8: timestamp 'yesterday' is not a number or an ISO"
        ):
            read_log(path)


def test_a_bad_timestamp_is_located_far_into_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.delimited.BLOCK_BYTES", 256)
    lines = [f"u{n},i{n},{n}" for n in range(1000)]
    lines[800] = "u,i,noon"
    path = write("user_id,item_id,timestamp\n" + "\n".join(lines))
    with pytest.raises(LogError, match="line 802: timestamp 'noon'"):
        read_log(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "timestamp '' is not a number"),
        ("2024-13-01", "timestamp '2024-13-01' is not a number or an ISO 8601 time"),
        ("2024-02-30T00:00:00Z", "timestamp '2024-02-30T00:00:00Z' is not"),
        ("nan", "timestamp nan is not finite"),
        ("inf", "timestamp inf is not finite"),
        ("-Infinity", "timestamp -inf is not finite"),
        ("x" * 5000, f"timestamp '{'x' * 80}' is not"),
    ],
)
def test_bad_timestamps_are_rejected(write: Write, text: str, message: str) -> None:
    path = write(f"user_id,item_id,timestamp\na,b,1\na,b,2010-01-01\na,b,{text}\n")
    with pytest.raises(LogError, match=f"line 4: {message}"):
        read_log(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nan", "weight nan; it must be"),
        ("inf", "weight inf; it must be"),
        ("much", "weight 'much' is not a number"),
    ],
)
def test_bad_weights_are_rejected(write: Write, text: str, message: str) -> None:
    path = write(f"user_id,item_id,timestamp,weight\na,x,1,2\na,x,1,{text}\n")
    with pytest.raises(LogError, match=f"line 3: {message}"):
        read_log(path)


def test_weights_may_be_negative(write: Write) -> None:
    text = "user_id,item_id,timestamp,weight\na,x,1,2\na,y,1,-3.5\na,z,1,0\n"
    assert list(read_log(write(text), min_weight=1).item_ids) == ["x"]
    assert list(read_log(write(text), min_weight=-3.5).item_ids) == ["x", "y", "z"]
    assert len(read_log(write(text))) == 3
