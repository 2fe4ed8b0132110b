"""Log files of every format, and every way in which one can be wrong."""

import gzip
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data import readers
from training.data.errors import LogError
from training.data.format_detection import format_of
from training.data.formats import FORMATS
from training.data.interactions import Interactions
from training.data.readers import read_log

Row = tuple[str, str, float]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(content: str | bytes, name: str = "log.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def rows_of(log: Interactions) -> list[Row]:
    users = np.repeat(log.user_ids, np.diff(log.offsets))
    return list(zip(users, log.item_ids[log.items], log.times.tolist(), strict=True))


# Each: file name, format, content, rows it holds.
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


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("named", [False, True], ids=["detected", "named"])
def test_formats(write: Write, case: str, compressed: bool, named: bool) -> None:
    name, format, content, rows = FILES[case]
    data = content.encode()
    path = write(gzip.compress(data), f"{name}.gz") if compressed else write(data, name)
    assert format_of(path) == format
    assert rows_of(read_log(path, format if named else "auto")) == rows


def test_each_format_is_tried_above_or_below() -> None:
    assert {format for _, format, _, _ in FILES.values()} | {"parquet"} == set(FORMATS)


def test_gzip_is_told_by_content_and_may_have_several_members(write: Write) -> None:
    start, end = b"user_id,item_id,timestamp\nann,tea,1\n", b"bob,tea,2\n"
    path = write(gzip.compress(start) + gzip.compress(end), "log.csv")
    assert rows_of(read_log(path)) == [("ann", "tea", 1), ("bob", "tea", 2)]


def test_amazon_ratings_that_do_not_tell_user_from_item_need_the_format(write: Write) -> None:
    path = write("u1,i1,5.0,100\nu2,i1,5.0,200\n", "ratings.csv")
    with pytest.raises(LogError, match=r"neither column .* amazon-csv-2014 .* amazon-csv-2018"):
        read_log(path)
    assert rows_of(read_log(path, "amazon-csv-2018"))[0] == ("i1", "u1", 100)


def test_ids_are_opaque(write: Write) -> None:
    path = write("user_id,item_id,timestamp\n01,1e3,1\n1,1000,1\n 1,NULL,1\nñ,nan,1\n")
    log = read_log(path)
    assert list(log.user_ids) == [" 1", "01", "1", "ñ"]
    assert list(log.item_ids) == ["1000", "1e3", "NULL", "nan"]


def test_many_blocks_make_one_table(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.formats._BLOCK_BYTES", 512)
    monkeypatch.setattr(readers, "_LOOSE_IDS", 20)
    rng = np.random.default_rng(0)
    rows = [(f"u{rng.integers(99)}", f"i{rng.integers(50)}", float(t)) for t in range(2000)]
    path = write("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    assert rows_of(read_log(path)) == sorted(rows, key=lambda row: (row[0], row[2]))


# --- Parquet -------------------------------------------------------------------------------------


def parquet(path: Path, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


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
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet_of_many_types(tmp_path: Path, times: pa.Array, kind: pa.DataType) -> None:
    users = pa.array(["ann", "ann"]).cast(kind)
    path = parquet(tmp_path / "log", user_id=users, item_id=pa.array([7, -8]), timestamp=times)
    assert rows_of(read_log(path)) == [("ann", "7", 86400), ("ann", "-8", 86401)]


def test_parquet_of_days(tmp_path: Path) -> None:
    days = pa.array([datetime(1970, 1, 2).date()])
    path = parquet(tmp_path / "log", user_id=["ann"], item_id=["x"], timestamp=days)
    assert rows_of(read_log(path)) == [("ann", "x", 86400)]


def test_a_folder_of_parquet_files_is_one_log(tmp_path: Path) -> None:
    for day, user in (1, "ann"), (2, "bob"):
        folder = tmp_path / f"date=2026-01-0{day}"
        parquet(folder / "part-0.parquet", user_id=[user], item_id=["x"], timestamp=[day])
    parquet(tmp_path / "empty.parquet", user_id=[""][:0], item_id=[""][:0], timestamp=[1][:0])
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-1.parquet").write_bytes(b"half")
    (tmp_path / "_temporary").mkdir()
    (tmp_path / "_temporary" / "part-2.parquet").write_bytes(b"half")
    assert rows_of(read_log(tmp_path)) == [("ann", "x", 1), ("bob", "x", 2)]


def test_a_hidden_parent_folder_hides_nothing(tmp_path: Path) -> None:
    parquet(tmp_path / ".log" / "a.parquet", user_id=["ann"], item_id=["x"], timestamp=[1])
    assert len(read_log(tmp_path / ".log")) == 1


def test_a_wrong_value_in_a_folder_is_found(tmp_path: Path) -> None:
    parquet(tmp_path / "a" / "1.parquet", user_id=["ann"], item_id=["x"], timestamp=[1])
    two = {"user_id": ["ann", None], "item_id": ["x", "x"], "timestamp": [1, 2]}
    parquet(tmp_path / "b" / "2.parquet", **two)
    with pytest.raises(LogError, match=r"b/2\.parquet, row 2: no user id"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("user_id", pa.array([1.0]), "user id is of type double; it must be text or an integer"),
        ("item_id", pa.array([["x"]]), "item id is of type list"),
        ("timestamp", pa.array([[1]]), "timestamp is of type list"),
        ("timestamp", pa.array([None], pa.int64()), "no timestamp"),
        ("timestamp", pa.array([float("nan")]), "timestamp nan is not finite"),
        ("weight", pa.array([-0.5]), "weight -0.5; it must be 0 or more"),
    ],
    ids=str,
)
def test_parquet_values_that_cannot_be_used(
    tmp_path: Path, column: str, values: pa.Array, complaint: str
) -> None:
    columns = {"user_id": ["ann"], "item_id": ["x"], "timestamp": [1], column: values}
    with pytest.raises(LogError, match=f"row 1: {complaint}"):
        read_log(parquet(tmp_path / "log.parquet", **columns))


def test_what_is_no_parquet_file_is_refused(tmp_path: Path, write: Write) -> None:
    with pytest.raises(LogError, match="not a Parquet file"):
        read_log(write("user_id,item_id,timestamp\na,b,1\n", "log.parquet"))
    whole = parquet(tmp_path / "whole.parquet", user_id=["a"], item_id=["b"], timestamp=[1])
    with pytest.raises(LogError, match="not a Parquet file, or a damaged one"):
        read_log(write(whole.read_bytes()[:-20], "cut.parquet"))
    (tmp_path / "none").mkdir()
    with pytest.raises(LogError, match=r"a folder without a \.parquet file"):
        read_log(tmp_path / "none")
    with pytest.raises(LogError, match=r"no column 'timestamp' among user_id, item_id, ts"):
        read_log(parquet(tmp_path / "ts.parquet", user_id=["a"], item_id=["b"], ts=[1]))


# --- times ---------------------------------------------------------------------------------------

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
def test_times(write: Write, text: str, moment: datetime) -> None:
    # Beside times of the other kinds, as logs that were put together have them.
    others = "u,i,1\nu,i,2001-01-01T00:00:00Z\nu,i,2002-02-02\n"
    alone = write(f"user_id,item_id,timestamp\nann,x,{text}\n", "alone.csv")
    mixed = write(f"user_id,item_id,timestamp\n{others}ann,x,{text}\n", "mixed.csv")
    assert read_log(alone).times.tolist() == [moment.timestamp()]
    assert rows_of(read_log(mixed))[0] == ("ann", "x", moment.timestamp())


def test_a_time_that_is_not_utf8_is_refused(write: Write) -> None:
    with pytest.raises(LogError, match="line 2: timestamp '2\ufffd' is not UTF-8"):
        read_log(write(b"user_id,item_id,timestamp\na,b,2\xff\n"))


def test_the_line_of_a_time_that_is_none_is_that_of_the_file(write: Write) -> None:
    rows = (
        'note,user_id,item_id,timestamp\n"two\nlines",a,b,1\n\n,a,b,2\n\n\n,a,b,yesterday\n,a,b,3\n'
    )
    for path in write(rows), write(gzip.compress(rows.encode()), "log.csv.gz"):
        with pytest.raises(
            LogError, match=r"log\.csv.*, line 8: timestamp 'yesterday' is not a number or an ISO"
        ):
            read_log(path)


def test_the_line_is_right_far_into_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.formats._BLOCK_BYTES", 256)
    lines = [f"u{n},i{n},{n}" for n in range(1000)]
    lines[800] = "u,i,noon"
    path = write("user_id,item_id,timestamp\n" + "\n".join(lines))
    with pytest.raises(LogError, match="line 802: timestamp 'noon'"):
        read_log(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
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
def test_times_that_are_none(write: Write, text: str, complaint: str) -> None:
    path = write(f"user_id,item_id,timestamp\na,b,1\na,b,2010-01-01\na,b,{text}\n")
    with pytest.raises(LogError, match=f"line 4: {complaint}"):
        read_log(path)


# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (b"", "is empty"),
        (b"x" * 513, "is 513 bytes long"),
        (b"y" * 10_240, "is 10,240 bytes long"),
        (b"caf\xe9", r"b'caf\\xe9' is not UTF-8"),
    ],
)
@pytest.mark.parametrize("column", ["user", "item"])
def test_ids_that_are_none(write: Write, given: bytes, complaint: str, column: str) -> None:
    bad = given + b",x,1\n" if column == "user" else b"ann," + given + b",1\n"
    path = write(b"user_id,item_id,timestamp\nann,x,1\n" + bad + b"bob,x,1\n")
    with pytest.raises(
        LogError, match=f"line 3: {column} id {complaint}; it must be 1 to 512 bytes of UTF-8"
    ):
        read_log(path)


def test_an_id_may_have_512_bytes(write: Write) -> None:
    path = write(f"user_id,item_id,timestamp\n{'é' * 256},x,1\n")
    assert list(read_log(path).user_ids) == ["é" * 256]


# --- events and weights --------------------------------------------------------------------------

EVENTS = (
    "user_id,item_id,timestamp,event,weight\na,x,1,view,\na,y,2,buy,3\na,z,3,view,0.5\nb,x,4,,2\n"
)


def test_events_and_weights_choose(write: Write) -> None:
    path = write(EVENTS)
    assert len(read_log(path)) == 4
    assert [row[1] for row in rows_of(read_log(path, events=["view"]))] == ["x", "z"]
    assert [row[1] for row in rows_of(read_log(path, events=["buy", "none"]))] == ["y"]
    assert [row[2] for row in rows_of(read_log(path, min_weight=1))] == [1, 2, 4]
    assert rows_of(read_log(path, events=["view"], min_weight=1)) == [("a", "x", 1)]


def test_events_and_weights_of_parquet(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "log.parquet",
        user_id=["a", "b", "c"],
        item_id=["x", "x", "x"],
        timestamp=[1, 2, 3],
        event=pa.array(["view", None, "buy"]).dictionary_encode(),
        weight=pa.array([None, 2, 0.5]),
    )
    assert [row[0] for row in rows_of(read_log(path, events=["view", "buy"]))] == ["a", "c"]
    assert [row[0] for row in rows_of(read_log(path, min_weight=1))] == ["a", "b"]


def test_ratings_are_weights(write: Write) -> None:
    name, _, content, rows = FILES["MovieLens 20M"]
    assert rows_of(read_log(write(content, name), min_weight=4)) == [rows[1]]
    name, _, content, rows = FILES["Amazon reviews 2014"]
    assert rows_of(read_log(write(content, name), min_weight=2)) == [rows[1]]


def test_choices_that_leave_nothing_or_cannot_be_made(write: Write) -> None:
    with pytest.raises(
        LogError, match="none of 4 interactions has event rent and weight 9 or more"
    ):
        read_log(write(EVENTS), events=["rent"], min_weight=9)
    plain = write("user_id,item_id,timestamp\na,x,1\n", "plain.csv")
    with pytest.raises(LogError, match="no event types"):
        read_log(plain, events=["view"])
    with pytest.raises(LogError, match="no weights"):
        read_log(plain, min_weight=1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-1", "weight -1; it must be 0 or more"),
        ("nan", "weight nan; it must be"),
        ("inf", "weight inf; it must be"),
        ("much", "weight 'much' is not a number"),
    ],
)
def test_weights_that_are_none(write: Write, text: str, complaint: str) -> None:
    path = write(f"user_id,item_id,timestamp,weight\na,x,1,2\na,x,1,{text}\n")
    with pytest.raises(LogError, match=f"line 3: {complaint}"):
        read_log(path)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["auto", "csv", "amazon-json", "gowalla"])
@pytest.mark.parametrize("content", [b"", b"\n\n", gzip.compress(b"")], ids=["0", "blank", "gzip"])
def test_an_empty_file_is_refused(write: Write, content: bytes, format: str) -> None:
    with pytest.raises(LogError, match=r"log\.csv: empty"):
        read_log(write(content), format)


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
def test_a_header_alone_is_refused(write: Write, end: str) -> None:
    with pytest.raises(LogError, match="a header and interactions below it are needed"):
        read_log(write(f"user_id,item_id,timestamp{end}"))


def test_parquet_without_rows_is_refused(tmp_path: Path) -> None:
    none = {name: pa.array([], pa.string()) for name in ("user_id", "item_id", "timestamp")}
    with pytest.raises(LogError, match="no interactions"):
        read_log(parquet(tmp_path / "none.parquet", **none))


def test_a_missing_column_is_named_with_those_found(write: Write) -> None:
    with pytest.raises(
        LogError, match="no column 'item_id' among user_id, product, timestamp; add"
    ):
        read_log(write("user_id,product,timestamp\na,b,1\n"))
    with pytest.raises(LogError, match="no column 'timestamp' among user_id, item_id"):
        read_log(write("user_id:token\titem_id:token\n1\t2\n", "x.inter"))
    with pytest.raises(LogError, match="no column 'unixReviewTime' among reviewerID, asin"):
        read_log(write('{"reviewerID": "a", "asin": "b"}\n', "x.json"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("user_id,item_id,timestamp\na,b,1\na,b\n", "line 3: 2 fields where 3 are needed"),
        ("user_id,item_id,timestamp\n\na,b,1\na,b,2,3\n", "line 4: 4 fields where 3 are needed"),
        ('user_id,item_id,timestamp\na,b,1\n"a,b,2\na,b,3\n', "line 3: 1 fields where 3"),
        ("1::2::3::4\n1::2::3\n", "line 2: 5 fields where 7"),
    ],
)
def test_a_line_of_another_width_is_found(write: Write, content: str, complaint: str) -> None:
    with pytest.raises(LogError, match=complaint):
        read_log(write(content))


GOOD = '{"reviewerID": "a", "asin": "b", "unixReviewTime": 1, "overall": 5}\n'


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"reviewerID": "a", "asin"', "not JSON"),
        ("[1, 2]", "not a JSON object"),
        (
            '{"reviewerID": 7, "asin": "b", "unixReviewTime": 1}',
            "reviewerID is 7; it must be a str",
        ),
        (
            '{"reviewerID": "a", "asin": "b", "unixReviewTime": "1"}',
            "unixReviewTime is '1'; it must",
        ),
        ('{"reviewerID": "a", "unixReviewTime": 1}', "no item id"),
        ('{"reviewerID": "a", "asin": "b"}', "no timestamp"),
        ('{"reviewerID": "a", "asin": "", "unixReviewTime": 1}', "item id is empty"),
        ('{"reviewerID": "a", "asin": "b", "unixReviewTime": 1, "overall": -1}', "weight -1"),
    ],
)
def test_a_line_of_json_that_cannot_be_used_is_found(
    write: Write, line: str, complaint: str
) -> None:
    with pytest.raises(LogError, match=rf"line 4: {complaint}"):
        read_log(write(f"{GOOD}\n{GOOD}{line}\n{GOOD}", "x.json"))


def test_json_that_is_not_utf8_is_found(write: Write) -> None:
    content = GOOD.encode() + GOOD.encode().replace(b'"a"', b'"\xff"')
    with pytest.raises(LogError, match=r"line 2: user id b'\\xff' is not UTF-8"):
        read_log(write(content, "x.json"))


@pytest.mark.parametrize("case", ["csv", "Amazon reviews 2014", "Gowalla"])
@pytest.mark.parametrize("cut", [4, 30, -9, -1])
def test_a_gzip_that_ends_early_is_refused(write: Write, case: str, cut: int) -> None:
    name, _, content, _ = FILES[case]
    with pytest.raises(LogError, match="cannot be read to its end"):
        read_log(write(gzip.compress(content.encode())[:cut], name))


def test_a_long_gzip_that_ends_early_is_refused(write: Write) -> None:
    rng = np.random.default_rng(0)
    lines = "".join(f"{rng.integers(1 << 40)},x,1\n" for _ in range(20_000))
    data = gzip.compress(f"user_id,item_id,timestamp\n{lines}".encode())
    with pytest.raises(LogError, match="cannot be read to its end"):
        read_log(write(data[: len(data) // 2 * 2 - 20], "log.csv.gz"))
    damaged = data[:90_000] + bytes(100) + data[90_100:]
    with pytest.raises(LogError):
        read_log(write(damaged, "log.csv.gz"))


def test_what_is_not_there_or_not_known_is_refused(tmp_path: Path, write: Write) -> None:
    with pytest.raises(LogError, match=r"gone\.csv: no such file or folder"):
        read_log(tmp_path / "gone.csv")
    with pytest.raises(LogError, match="no such file or folder"):
        read_log(tmp_path / "gone.csv", "csv")
    path = write("just some words\nand more\n", "notes.txt")
    with pytest.raises(LogError, match=r"format not recognised .* csv, parquet"):
        read_log(path)
    with pytest.raises(LogError, match="format: 'cvs'; choose auto, csv"):
        read_log(path, "cvs")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """With a byte changed, some taken out, something put in, or the end cut off."""
    place = rng.randrange(len(content))
    before, after = content[:place], content[place:]
    odd = [b'"', b"\n", b"\r", b",", b"\t", b"\0", b"\xff", b"::", b"{", b"nan", b"-", b"9" * 30]
    return rng.choice(
        [
            before + rng.randbytes(1) + after[1:],
            before + after[rng.randint(1, 8) :],
            before + rng.choice(odd) + after,
            before,
        ]
    )


def read_or_refusal(path: Path) -> Interactions | LogError:
    try:
        return read_log(path)
    except LogError as refusal:
        return refusal


@pytest.mark.parametrize("case", FILES)
def test_damage_is_read_over_or_refused_in_one_sentence(write: Write, case: str) -> None:
    name, _, content, _ = FILES[case]
    rng = random.Random(0)
    for number in range(100):
        data = damaged(content.encode(), rng)
        path = write(damaged(gzip.compress(data), rng) if number % 4 == 0 else data, name)
        outcome = read_or_refusal(path)
        if isinstance(outcome, LogError):
            assert str(outcome).startswith(str(path))
            assert "\n" not in str(outcome)
        else:
            assert len(outcome) > 0
            assert np.isfinite(outcome.times).all()


def test_one_user_with_one_item_is_a_log(write: Write) -> None:
    assert rows_of(read_log(write("user_id,item_id,timestamp\na,b,1\n"))) == [("a", "b", 1)]
