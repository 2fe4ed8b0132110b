"""A quote too many does not swallow lines; text of several lines is read."""

import bz2
import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.errors import LogError
from training.data.interactions import Interactions
from training.data.item_metadata import read_items
from training.data.log_options import LogSource
from training.data.readers import read_log

Write = Callable[..., Path]
RowsOf = Callable[[Interactions], list[tuple[str, str, float]]]

HEADER = "user_id,item_id,timestamp,note"


def log(*notes: str, separator: str = ",") -> str:
    rows = (f"u{n},i{n},{1600000000 + n},{note}" for n, note in enumerate(notes))
    return "\n".join([HEADER, *rows, ""]).replace(",", separator)


def with_notes(quoted: dict[int, str]) -> list[str]:
    """2,400 notes, these among them."""
    return [quoted.get(n, "fine") for n in range(2400)]


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize(
    ("quoted", "line"),
    [
        ({1200: '"7 inch'}, 1202),
        ({1200: '"7 inch', 1800: '"8 inch'}, 1202),
        ({1200: '"7 inch', 1201: 'or 8"'}, 1202),
        ({1200: '"7 inch', 1800: '"'}, 1202),
        ({2399: '"7 inch'}, 2401),
        ({2398: '"7 inch'}, 2400),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_a_stray_quote_in_an_unused_column_is_located(
    write: Write,
    separator: str,
    quoted: dict[int, str],
    line: int,
    pack: Callable[[bytes], bytes],
) -> None:
    path = write(pack(log(*with_notes(quoted), separator=separator).encode()))
    with pytest.raises(LogError, match=f"line {line:,}: a quote opens a field that"):
        read_log(path, source=LogSource(separator=separator))


@pytest.mark.parametrize(
    "rows",
    [
        'note,user_id,item_id,timestamp\n"a,u1,i1,1\nb",u2,i2,2\n,u3,i3,3\n',
        'user_id,note,item_id,timestamp\nu1,"a,i1,1\nu2,b",i2,2\nu3,,i3,3\n',
        'user_id,item_id,note,timestamp\nu1,i1,"a,1\nu2,i2,b",2\nu3,i3,,3\n',
        'user_id,item_id,timestamp,note\nu1,i1,1,"a\nu2,i2,2,b"\nu3,i3,3,\n',
    ],
)
def test_two_quotes_on_neighbouring_lines_swallow_none(write: Write, rows: str) -> None:
    with pytest.raises(LogError, match="line 2: a quote opens a field that"):
        read_log(write(rows))


def test_only_the_line_with_the_stray_quote_is_skipped(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(log(*with_notes({1200: '"7 inch', 1800: '"8 inch'})))
    log_read = read_log(path, source=LogSource(skip_bad_rows=2))
    assert re.search("2 bad rows skipped.*line 1,202: .*line 1,802: ", caplog.text)
    assert len(log_read) == 2398
    assert not {"u1200", "u1800"} & set(log_read.user_ids)
    # Values after it are still located by the line of the file.
    broken = log(*with_notes({1200: '"7 inch'})).replace("1600002000", "noon")
    with pytest.raises(LogError, match=r"line 1,202: a quote .*; .*line 2,002: timestamp 'noon'"):
        read_log(write(broken), source=LogSource(skip_bad_rows=1))


@pytest.mark.parametrize(
    "note",
    [
        '"two\nlines"',
        '"three\n\nlines, with, commas, and 5"',
        '"a ""quoted"" word\nand ""another"""',
        '5" of rain',
        '"7" inch',
        '""',
        '"',
    ],
)
def test_text_with_quotes_and_lines_is_read(write: Write, note: str, rows_of: RowsOf) -> None:
    content = log("fine", note, "fine")
    if note == '"':
        with pytest.raises(LogError, match="line 3"):
            read_log(write(content))
    else:
        assert [row[0] for row in rows_of(read_log(write(content)))] == ["u0", "u1", "u2"]


def test_text_with_lines_may_be_the_first_column(write: Write, rows_of: RowsOf) -> None:
    content = 'note,user_id,item_id,timestamp\n"Nice, but\n5, or\nso",a,x,1\n"one\ntwo",b,x,2\n'
    assert rows_of(read_log(write(content))) == [("a", "x", 1), ("b", "x", 2)]


def test_a_file_cut_inside_of_a_quoted_field_is_rejected(write: Write) -> None:
    content = log("fine", '"two\nlines"')
    with pytest.raises(LogError, match="line 3: a quote opens a field that is never closed"):
        read_log(write(content[: content.index("lines")]))


@pytest.mark.parametrize(
    "titles", ['A\n2,"7 inch\n3,C\n4,D', 'A\n2,"7 inch\n3,C\n4,"D', 'A\n2,"7 inch\n3,C"\n4,D']
)
def test_a_stray_quote_in_an_item_file_is_located(write: Write, titles: str) -> None:
    path = write(f"item_id,title\n1,{titles}\n", "items.csv")
    with pytest.raises(LogError, match=r"items\.csv, line 3: a quote opens"):
        read_items(path)


def test_titles_of_several_lines_are_read(write: Write) -> None:
    path = write('item_id,title\n1,"Long\ntitle, of two lines"\n2,B\n', "items.csv")
    assert {key: item.title for key, item in read_items(path).items()} == {
        "1": "Long\ntitle, of two lines",
        "2": "B",
    }
