"""Log files of every format, and every way in which one can be damaged."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from training.data.errors import LogError
from training.data.format_detection import detect_format
from training.data.interactions import Interactions
from training.data.readers import read_log

Row = tuple[str, str, float]
Write = Callable[..., Path]
RowsOf = Callable[[Interactions], list[Row]]

# Each: file name, format, content, its rows.
FILES: dict[str, tuple[str, str, str, list[Row]]] = {
    "csv": (
        "clicks.csv",
        "csv",
        "user_id,item_id,timestamp\nann,tea,20\nbob,cup,7.5\nann,pot,10\n",
        [("ann", "pot", 10), ("ann", "tea", 20), ("bob", "cup", 7.5)],
    ),
    "csv with more columns, another order, quotes and Windows line ends": (
        "clicks.txt",
        "csv",
        'page,timestamp,item_id,user_id\r\n"a ""b"",\nc",3,"x,y",ann\r\n/,4,z,ann\r\n',
        [("ann", "x,y", 3), ("ann", "z", 4)],
    ),
    "csv with a byte order mark and no last line end": (
        "excel.csv",
        "csv",
        "\ufeffuser_id,item_id,timestamp\nann,tea,20",
        [("ann", "tea", 20)],
    ),
    "MovieLens 1M": (
        "ratings.dat",
        "movielens-dat",
        "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n",
        [("1", "1193", 978300760), ("1", "661", 978302109), ("2", "1193", 978298413)],
    ),
    "MovieLens 20M": (
        "ratings.csv",
        "movielens-csv",
        "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n1,306,3.5,1147868817\n",
        [("1", "306", 1147868817), ("1", "296", 1147880044)],
    ),
    "MovieLens 100K": (
        "u.data",
        "movielens-100k",
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
        [("186", "302", 891717742), ("196", "242", 881250949)],
    ),
    "Amazon reviews 2014": (
        "reviews_Beauty_5.json",
        "amazon-json",
        '{"reviewerID": "A1YJEY40YUW4SE", "asin": "7806397051", "reviewerName": "Ann", "helpful":'
        ' [3, 4], "reviewText": "Don\'t waste your {money}", "overall": 1.0, "unixReviewTime":'
        ' 1391040000, "reviewTime": "01 30, 2014"}\n'
        '{"reviewerID": "A60XNB876KYML", "asin": "B0009P4PZC", "overall": 3.0, "unixReviewTime":'
        " 1397779200}\n",
        [("A1YJEY40YUW4SE", "7806397051", 1391040000), ("A60XNB876KYML", "B0009P4PZC", 1397779200)],
    ),
    "Amazon reviews 2018": (
        "Gift_Cards.json",
        "amazon-json",
        '{"overall": 5.0, "verified": true, "reviewTime": "12 19, 2008", "reviewerID":'
        ' "A3QY3THQ42WSCQ", "asin": "B001GXRQW0", "style": {"Gift Amount:": " 50"}, "image": ["x"],'
        ' "reviewText": "\\u00e9t\\u00e9", "unixReviewTime": 1229644800}\n',
        [("A3QY3THQ42WSCQ", "B001GXRQW0", 1229644800)],
    ),
    "Amazon ratings 2014": (
        "ratings_Beauty.csv",
        "amazon-csv-2014",
        "A39HTATAQ9V7YF,0205616461,5.0,1369699200\nA3JM6GV9MNOF9X,B000052YAN,3.0,1355443200\n",
        [
            ("A39HTATAQ9V7YF", "0205616461", 1369699200),
            ("A3JM6GV9MNOF9X", "B000052YAN", 1355443200),
        ],
    ),
    "Amazon ratings 2018": (
        "All_Beauty.csv",
        "amazon-csv-2018",
        "0143026860,A1V6B6TNIC10QE,1.0,1424304000\n014789302X,A2IIIDRK3PRRZY,5.0,1372118400\n",
        [
            ("A1V6B6TNIC10QE", "0143026860", 1424304000),
            ("A2IIIDRK3PRRZY", "014789302X", 1372118400),
        ],
    ),
    "Gowalla": (
        "Gowalla_totalCheckins.txt",
        "gowalla",
        "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n"
        "0\t2010-10-18T22:17:43Z\t30.2691029532\t-97.7493953705\t420315\n",
        [("0", "420315", 1287440263), ("0", "22847", 1287532527)],
    ),
    "RecBole": (
        "ml-100k.inter",
        "recbole",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        '196\t242\t3\t881250949\n186\t3"02\t3\t891717742\n',
        [("186", '3"02', 891717742), ("196", "242", 881250949)],
    ),
}


@pytest.mark.usefixtures("both_engines")
@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("named", [False, True], ids=["detected", "named"])
def test_each_format_is_detected_and_read(
    write: Write, case: str, compressed: bool, named: bool, rows_of: RowsOf
) -> None:
    name, format, content, rows = FILES[case]
    data = content.encode()
    path = write(gzip.compress(data), f"{name}.gz") if compressed else write(data, name)
    assert detect_format(path) == format
    assert rows_of(read_log(path, format if named else "auto")) == rows


def test_gzip_is_detected_by_content_and_may_have_several_members(
    write: Write, rows_of: RowsOf
) -> None:
    start, end = b"user_id,item_id,timestamp\nann,tea,1\n", b"bob,tea,2\n"
    path = write(gzip.compress(start) + gzip.compress(end), "log.csv")
    assert rows_of(read_log(path)) == [("ann", "tea", 1), ("bob", "tea", 2)]


def test_ambiguous_amazon_ratings_need_a_named_format(write: Write, rows_of: RowsOf) -> None:
    path = write("u1,i1,5.0,100\nu2,i1,5.0,200\n", "ratings.csv")
    with pytest.raises(LogError, match=r"--format: amazon-csv-2014 .* amazon-csv-2018"):
        read_log(path)
    assert rows_of(read_log(path, "amazon-csv-2018"))[0] == ("i1", "u1", 100)


@pytest.mark.usefixtures("both_engines")
def test_many_blocks_make_one_log(
    write: Write, monkeypatch: pytest.MonkeyPatch, rows_of: RowsOf
) -> None:
    monkeypatch.setattr("training.data.delimited.BLOCK_BYTES", 512)
    monkeypatch.setattr("training.data.id_encoding._MIN_PENDING", 20)
    rng = np.random.default_rng(0)
    rows = [(f"u{rng.integers(99)}", f"i{rng.integers(50)}", float(t)) for t in range(2000)]
    path = write("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    assert rows_of(read_log(path)) == sorted(rows, key=lambda row: (row[0], row[2]))


EVENTS = (
    "user_id,item_id,timestamp,event,weight\na,x,1,view,\na,y,2,buy,3\na,z,3,view,0.5\nb,x,4,,2\n"
)


@pytest.mark.usefixtures("both_engines")
def test_events_and_weights_filter(write: Write, rows_of: RowsOf) -> None:
    path = write(EVENTS)
    assert len(read_log(path)) == 4
    assert [row[1] for row in rows_of(read_log(path, events=["view"]))] == ["x", "z"]
    assert [row[1] for row in rows_of(read_log(path, events=["buy", "none"]))] == ["y"]
    assert [row[2] for row in rows_of(read_log(path, min_weight=1))] == [1, 2, 4]
    assert rows_of(read_log(path, events=["view"], min_weight=1)) == [("a", "x", 1)]


@pytest.mark.usefixtures("both_engines")
def test_events_and_weights_filter_parquet(
    tmp_path: Path, rows_of: RowsOf, write_parquet: Write
) -> None:
    path = write_parquet(
        tmp_path / "log.parquet",
        user_id=["a", "b", "c"],
        item_id=["x", "x", "x"],
        timestamp=[1, 2, 3],
        event=pa.array(["view", None, "buy"]).dictionary_encode(),
        weight=pa.array([None, 2, 0.5]),
    )
    assert [row[0] for row in rows_of(read_log(path, events=["view", "buy"]))] == ["a", "c"]
    assert [row[0] for row in rows_of(read_log(path, min_weight=1))] == ["a", "b"]


@pytest.mark.usefixtures("both_engines")
def test_ratings_are_weights(write: Write, rows_of: RowsOf) -> None:
    name, _, content, rows = FILES["MovieLens 20M"]
    assert rows_of(read_log(write(content, name), min_weight=4)) == [rows[1]]
    name, _, content, rows = FILES["Amazon reviews 2014"]
    assert rows_of(read_log(write(content, name), min_weight=2)) == [rows[1]]


def test_a_filter_that_keeps_nothing_or_lacks_its_column_is_rejected(write: Write) -> None:
    with pytest.raises(
        LogError, match="none of 4 interactions has event rent and weight 9 or more"
    ):
        read_log(write(EVENTS), events=["rent"], min_weight=9)
    plain = write("user_id,item_id,timestamp\na,x,1\n", "plain.csv")
    with pytest.raises(LogError, match="no event types"):
        read_log(plain, events=["view"])
    with pytest.raises(LogError, match="no weights"):
        read_log(plain, min_weight=1)


@pytest.mark.parametrize("format", ["auto", "csv", "amazon-json", "gowalla"])
@pytest.mark.parametrize("content", [b"", b"\n\n", gzip.compress(b"")], ids=["0", "blank", "gzip"])
def test_an_empty_file_is_rejected(write: Write, content: bytes, format: str) -> None:
    with pytest.raises(LogError, match=r"log\.csv: empty"):
        read_log(write(content), format)


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
def test_a_header_alone_is_rejected(write: Write, end: str) -> None:
    with pytest.raises(LogError, match="a header and interactions below it are needed"):
        read_log(write(f"user_id,item_id,timestamp{end}"))


def test_a_missing_column_is_named_with_the_columns_found(write: Write) -> None:
    with pytest.raises(
        LogError, match="no column 'item_id' among user_id, product, timestamp; add"
    ):
        read_log(write("user_id,product,timestamp\na,b,1\n"))
    with pytest.raises(LogError, match="no column 'timestamp' among user_id, item_id"):
        read_log(write("user_id:token\titem_id:token\n1\t2\n", "x.inter"))
    with pytest.raises(LogError, match="no column 'unixReviewTime' among reviewerID, asin"):
        read_log(write('{"reviewerID": "a", "asin": "b"}\n', "x.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id,item_id,timestamp\na,b,1\na,b\n", "line 3: 2 fields where 3 are needed"),
        ("user_id,item_id,timestamp\n\na,b,1\na,b,2,3\n", "line 4: 4 fields where 3 are needed"),
        ("1::2::3::4\n1::2::3\n", "line 2: 5 fields where 7"),
    ],
)
def test_a_line_with_a_wrong_number_of_fields_is_located(
    write: Write, content: str, message: str
) -> None:
    with pytest.raises(LogError, match=message):
        read_log(write(content))


@pytest.mark.parametrize("case", ["csv", "Amazon reviews 2014", "Gowalla"])
@pytest.mark.parametrize("cut", [4, 30, -9, -1])
def test_a_truncated_gzip_is_rejected(write: Write, case: str, cut: int) -> None:
    name, _, content, _ = FILES[case]
    with pytest.raises(LogError, match="cannot be read to its end"):
        read_log(write(gzip.compress(content.encode())[:cut], name))


def test_a_long_truncated_or_damaged_gzip_is_rejected(write: Write) -> None:
    rng = np.random.default_rng(0)
    lines = "".join(f"{rng.integers(1 << 40)},x,1\n" for _ in range(20_000))
    data = gzip.compress(f"user_id,item_id,timestamp\n{lines}".encode())
    with pytest.raises(LogError, match="cannot be read to its end"):
        read_log(write(data[: len(data) // 2 * 2 - 20], "log.csv.gz"))
    damaged = data[:90_000] + bytes(100) + data[90_100:]
    with pytest.raises(LogError):
        read_log(write(damaged, "log.csv.gz"))


def test_a_missing_file_or_an_unknown_format_is_rejected(tmp_path: Path, write: Write) -> None:
    with pytest.raises(LogError, match=r"missing\.csv: no such file or folder"):
        read_log(tmp_path / "missing.csv")
    with pytest.raises(LogError, match="no such file or folder"):
        read_log(tmp_path / "missing.csv", "csv")
    path = write("just some words\nand more\n", "notes.txt")
    with pytest.raises(LogError, match=r"format not recognised .* csv, tsv, json, parquet"):
        read_log(path)
    with pytest.raises(LogError, match="format: 'cvs'; choose auto, csv"):
        read_log(path, "cvs")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with a byte changed, some removed, something inserted, or the end cut off."""
    index = rng.randrange(len(content))
    before, after = content[:index], content[index:]
    inserted = [
        b'"',
        b"\n",
        b"\r",
        b",",
        b"\t",
        b"\0",
        b"\xff",
        b"::",
        b"{",
        b"nan",
        b"-",
        b"9" * 30,
    ]
    return rng.choice(
        [
            before + rng.randbytes(1) + after[1:],
            before + after[rng.randint(1, 8) :],
            before + rng.choice(inserted) + after,
            before,
        ]
    )


def read_or_error(path: Path) -> Interactions | LogError:
    try:
        return read_log(path)
    except LogError as error:
        return error


@pytest.mark.parametrize("case", FILES)
def test_a_damaged_file_is_read_or_rejected_in_one_sentence(write: Write, case: str) -> None:
    name, _, content, _ = FILES[case]
    rng = random.Random(0)
    for number in range(100):
        data = damaged(content.encode(), rng)
        path = write(damaged(gzip.compress(data), rng) if number % 4 == 0 else data, name)
        result = read_or_error(path)
        if isinstance(result, LogError):
            assert str(result).startswith(str(path))
            assert "\n" not in str(result)
        else:
            assert len(result) > 0
            assert np.isfinite(result.times).all()


def test_one_user_with_one_item_is_a_log(write: Write, rows_of: RowsOf) -> None:
    assert rows_of(read_log(write("user_id,item_id,timestamp\na,b,1\n"))) == [("a", "b", 1)]
