"""Logs of any layout: columns by name, separators, no header, compression, folders."""

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from training.data.errors import LogError
from training.data.interactions import Interactions
from training.data.log_options import LogSource
from training.data.readers import read_log

Row = tuple[str, str, float]
Write = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("both_engines")
RowsOf = Callable[[Interactions], list[Row]]

ROWS = [("ann", "tea", 20.0), ("bob", "cup", 30.0)]
COLUMNS = {"user": "visitor", "item": "sku", "time": "at", "event": "what"}


def zipped(data: bytes, *names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("log.csv",):
            archive.writestr(name, data)
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(data)
    return buffer.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("content", "source"),
    [
        ("what,sku,visitor,at\nview,tea,ann,20\nview,cup,bob,30\n", {}),
        ("what\tsku\tvisitor\tat\nview\ttea\tann\t20\nview\tcup\tbob\t30\n", {}),
        ("what;sku;visitor;at\nview;tea;ann;20\nview;cup;bob;30\n", {}),
        ("what|sku|visitor|at\nview|tea|ann|20\nview|cup|bob|30\n", {"separator": "pipe"}),
        ("what^sku^visitor^at\nview^tea^ann^20\nview^cup^bob^30\n", {"separator": "^"}),
        (
            "view,tea,ann,20\nview,cup,bob,30\n",
            {"column_names": ("what", "sku", "visitor", "at")},
        ),
        (
            "view\ttea\tann\t20\nview\tcup\tbob\t30\n",
            {"column_names": ("what", "sku", "visitor", "at"), "separator": "\\t"},
        ),
        (
            '{"at": 20, "visitor": "ann", "sku": "tea", "what": "view", "x": [1]}\n'
            '{"at": 30.0, "visitor": "bob", "sku": "cup", "what": "view"}\n',
            {},
        ),
    ],
)
def test_columns_may_have_any_name_and_separator(
    write: Write, content: str, source: dict[str, object], rows_of: RowsOf
) -> None:
    layout = LogSource.model_validate({"columns": COLUMNS, **source})
    path = write(content, "log.txt")
    assert rows_of(read_log(path, source=layout)) == ROWS
    assert rows_of(read_log(path, events=["view"], source=layout)) == ROWS


def test_columns_of_parquet_may_have_any_name(
    tmp_path: Path, write_parquet: Write, rows_of: RowsOf
) -> None:
    path = write_parquet(
        tmp_path / "log", visitor=["ann", "bob"], sku=["tea", "cup"], at=[20, 30], what=["a", "b"]
    )
    source = LogSource(columns=COLUMNS)
    assert rows_of(read_log(path, source=source)) == ROWS
    assert rows_of(read_log(path, events=["b"], source=source)) == ROWS[1:]
    with pytest.raises(LogError, match="parquet is not delimited; leave out --separator"):
        read_log(path, source=LogSource(columns=COLUMNS, separator=";"))


def test_a_separator_alone_and_roles_as_names_are_enough(write: Write, rows_of: RowsOf) -> None:
    path = write("user_id^item_id^timestamp\nann^tea^20\nbob^cup^30\n")
    assert rows_of(read_log(path, source=LogSource(separator="^"))) == ROWS
    path = write("20;ann;tea\n30;bob;cup\n")
    assert rows_of(read_log(path, source=LogSource(column_names=("time", "user", "item")))) == ROWS


def test_rows_without_times_are_in_the_order_of_the_file(write: Write, rows_of: RowsOf) -> None:
    path = write("user_id,item_id\nann,tea\nann,cup\nann,pot\n")
    log = read_log(path, source=LogSource(columns={"time": "#"}))
    assert rows_of(log) == [("ann", "tea", 0), ("ann", "cup", 1), ("ann", "pot", 2)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": "visitor"}, "no column 'item_id' among .*name yours with --columns item=NAME"),
        ({**COLUMNS, "event": "evnt"}, "no column 'evnt' among what, sku, visitor, at"),
        ({**COLUMNS, "weight": "stars"}, "no column 'stars' among .* --columns weight=NAME"),
    ],
)
def test_a_column_that_is_named_must_be_there(
    write: Write, columns: dict[str, str], message: str
) -> None:
    path = write("what,sku,visitor,at\nview,tea,ann,20\n")
    with pytest.raises(LogError, match=message):
        read_log(path, source=LogSource(columns=columns))


def test_two_columns_of_one_name_are_refused(write: Write) -> None:
    with pytest.raises(LogError, match="two columns are named 'item_id'"):
        read_log(write("user_id,item_id,item_id,timestamp\na,b,c,1\n"))


@pytest.mark.parametrize("pack", [zipped, bz2.compress, zstd, gzip.compress])
@pytest.mark.parametrize("json", [False, True])
def test_compressed_logs_are_told_by_their_content(
    write: Write, pack: Callable[[bytes], bytes], json: bool, rows_of: RowsOf
) -> None:
    content = "user_id,item_id,timestamp\nann,tea,20\nbob,cup,30\n"
    if json:
        line = '{{"user_id": "{}", "item_id": "{}", "timestamp": {}}}\n'
        content = "".join(line.format(*row) for row in ROWS)
    assert rows_of(read_log(write(pack(content.encode()), "log"))) == ROWS
    broken = content.replace("20", "x" if not json else '"x"').encode()
    with pytest.raises(LogError, match=r"log, line \d"):
        read_log(write(pack(broken), "log"))


@pytest.mark.parametrize("pack", [zipped, bz2.compress, zstd])
@pytest.mark.parametrize("cut", [0.5, 0.9, 0.999])
def test_a_truncated_compressed_log_is_rejected(
    write: Write, pack: Callable[[bytes], bytes], cut: float
) -> None:
    rows = "".join(f"{n * 7919 % 10007},{n * 104729 % 10009},{n}\n" for n in range(5000))
    data = pack(f"user_id,item_id,timestamp\n{rows}".encode())
    with pytest.raises(LogError, match="cannot be read to its end"):
        read_log(write(data[: int(len(data) * cut)], "log"))


def test_a_zip_has_one_log(write: Write, rows_of: RowsOf) -> None:
    data = b"user_id,item_id,timestamp\nann,tea,20\nbob,cup,30\n"
    path = write(zipped(data, "data/log.csv", "__MACOSX/data/._log.csv", "data/"), "log.zip")
    assert rows_of(read_log(path)) == ROWS
    with pytest.raises(LogError, match=r"a zip of 2 files \(a.csv, b.csv\), where one is needed"):
        read_log(write(zipped(data, "a.csv", "b.csv"), "log.zip"))


def test_a_folder_of_shards_is_one_log(tmp_path: Path, rows_of: RowsOf) -> None:
    header = "user_id,item_id,timestamp\n"
    (tmp_path / "date=2").mkdir()
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-9.csv").write_text("half")
    (tmp_path / "part-0.csv").write_text(f"{header}ann,tea,20\n")
    (tmp_path / "part-1.csv.gz").write_bytes(gzip.compress(header.encode()))
    (tmp_path / "date=2" / "part-2.csv.gz").write_bytes(
        gzip.compress(b"timestamp,item_id,user_id\n30,cup,bob\n")
    )
    (tmp_path / "empty.csv").touch()
    assert rows_of(read_log(tmp_path)) == ROWS
    (tmp_path / "part-3.csv").write_text(f"{header}ann,pot,noon\n")
    with pytest.raises(LogError, match=r"part-3\.csv, line 2: timestamp 'noon'"):
        read_log(tmp_path)


def test_a_folder_of_shards_without_headers_or_of_two_formats(
    tmp_path: Path, rows_of: RowsOf
) -> None:
    (tmp_path / "part-0").write_text("ann,tea,20\n")
    (tmp_path / "part-1").write_text("bob,cup,30\n")
    source = LogSource(column_names=("user", "item", "time"))
    assert rows_of(read_log(tmp_path, source=source)) == ROWS
    (tmp_path / "part-0").write_text("user_id,item_id,timestamp\nann,tea,20\n")
    with pytest.raises(LogError, match="part-1: the first line is no header"):
        read_log(tmp_path)
    (tmp_path / "part-1").write_text('{"user_id": "a", "item_id": "b", "timestamp": 1}\n')
    with pytest.raises(LogError, match="part-0 is csv, and part-1 is json; a folder has files of"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"columns": {"visitor": "user"}},
            "'visitor=user' is not ROLE=NAME; the roles are user, item, time",
        ),
        ({"columns": "visitor"}, "'visitor' is not ROLE=NAME"),
        ({"columns": "user="}, "'user=' is not ROLE=NAME"),
        ({"columns": "user=a,user=b"}, "two columns for user: a and b"),
        ({"separator": "::"}, "'::' is not one character; give one, or tab, comma"),
    ],
)
def test_a_layout_that_cannot_be_used_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogSource.model_validate(given)


@pytest.mark.parametrize(
    "given",
    ["user=a,item=b", ["user=a", "item=b"], ("item=b", "user=a"), {"item": "b", "user": "a"}],
)
def test_columns_are_given_as_text_a_list_or_a_table(given: object) -> None:
    assert LogSource.model_validate({"columns": given}).columns == ("user=a", "item=b")


def test_the_names_of_separators() -> None:
    for given, separator in {"tab": "\t", "\\t": "\t", "\t": "\t", "semicolon": ";"}.items():
        assert LogSource(separator=given).separator == separator
