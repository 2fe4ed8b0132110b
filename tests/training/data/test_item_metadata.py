"""Titles and categories from item files of every format."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.errors import LogError
from training.data.item_metadata import ITEM_FORMATS, ItemDetails, read_items

Details = dict[str, tuple[str | None, str | None, tuple[str, ...]]]

ANIMATED = "|0|0|0|1|1|1" + "|0" * 13
NO_GENRE = "|0" * 19

# Each: file name, format, content, its items.
FILES: dict[str, tuple[str, str, bytes, Details]] = {
    "csv": (
        "items.csv",
        "csv",
        b'\xef\xbb\xbfcategory,price,item_id,title\r\nTea,3,01,"Green, loose"\r\n,,1,\r\n',
        {"01": ("Green, loose", "Tea", ()), "1": (None, None, ())},
    ),
    "csv without categories": ("items.csv", "csv", b"item_id,title\na,A\n", {"a": ("A", None, ())}),
    "csv with several categories": (
        "items.csv",
        "csv",
        b"item_id,title,category\na,A,Action|Comedy| Action |\nb,B,\n",
        {"a": ("A", "Action", ("Comedy",)), "b": ("B", None, ())},
    ),
    "csv with genres": ("items.csv", "csv", b"item_id,genres\na,X|Y\n", {"a": (None, "X", ("Y",))}),
    "MovieLens 1M": (
        "movies.dat",
        "movielens-dat",
        "1::Toy Story (1995)::Animation|Children's|Comedy\n2::Star Wars: Caf\xe9::Drama\n".encode(
            "latin-1"
        ),
        {
            "1": ("Toy Story (1995)", "Animation", ("Children's", "Comedy")),
            "2": ("Star Wars: Café", "Drama", ()),
        },
    ),
    "MovieLens 20M": (
        "movies.csv",
        "movielens-csv",
        'movieId,title,genres\n11,"American President, The (1995)",Comedy|Drama\n'
        "7,Été (2001),(no genres listed)\n".encode(),
        {
            "11": ("American President, The (1995)", "Comedy", ("Drama",)),
            "7": ("Été (2001)", None, ()),
        },
    ),
    "MovieLens 100K": (
        "u.item",
        "movielens-100k",
        f"1|Toy Story (1995)|01-Jan-1995||http://x{ANIMATED}\n2|Caf\xe9||| {NO_GENRE}\n".encode(
            "latin-1"
        ),
        {"1": ("Toy Story (1995)", "Animation", ("Children's", "Comedy")), "2": ("Café", None, ())},
    ),
    "RecBole films": (
        "ml-100k.item",
        "recbole",
        b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        b'1\tToy "Story"\t1995\tAnimation Children\'s Comedy\n2\tUntold\t\t\n',
        {"1": ('Toy "Story"', "Animation", ("Children's", "Comedy")), "2": ("Untold", None, ())},
    ),
    "RecBole phrases": (
        "amazon.item",
        "recbole",
        b"item_id:token\tcategories:token_seq\ttitle:token\nB00\t'Make Up', 'Nails'\tRed\n",
        {"B00": ("Red", "Make Up", ("Nails",))},
    ),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("named", [False, True], ids=["detected", "named"])
def test_each_format_is_detected_and_read(
    tmp_path: Path, case: str, compressed: bool, named: bool
) -> None:
    name, format, content, expected = FILES[case]
    path = tmp_path / name
    path.write_bytes(gzip.compress(content, mtime=0) if compressed else content)
    items = read_items(path, format if named else "auto")
    assert {key: item[:3] for key, item in items.items()} == expected


def test_each_format_has_a_test_file() -> None:
    assert {format for _, format, _, _ in FILES.values()} | {"parquet"} == set(ITEM_FORMATS)


def test_parquet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    titles = pa.array(["A", None]).dictionary_encode()
    pq.write_table(pa.table({"item_id": [7, 8], "title": titles, "price": [1.0, 2.0]}), path)
    assert read_items(path) == {
        "7": ItemDetails("A", None, attributes={"price": 1.0}),
        "8": ItemDetails(None, None, attributes={"price": 2.0}),
    }


def test_parquet_lists_of_categories_are_read(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    lists = pa.array([["Action", "Comedy"], [], None, ["Drama", None, ""]])
    pq.write_table(pa.table({"item_id": ["a", "b", "c", "d"], "category": lists}), path)
    assert read_items(path) == {
        "a": ItemDetails(None, "Action", ("Comedy",)),
        "b": ItemDetails(None, None),
        "c": ItemDetails(None, None),
        "d": ItemDetails(None, "Drama"),
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.csv", b"", "empty"),
        ("items.csv", b"item_id,title,category\n", "no items"),
        ("items.csv", b"id,title\n1,A\n", "no column 'item_id' among id, title"),
        ("items.csv", b"item_id,title\n1,A\n2\n", "line 3: 1 fields where 2 are needed"),
        ("items.csv", b"item_id,title\n1,A\n2,\xff\n", "line 3: not UTF-8"),
        ("movies.dat", b"1::A::B\n2::A\n", "line 2: 2 fields where 3 are needed"),
        ("items.parquet", b"item_id,title\n1,A\n", "not a Parquet file"),
        (
            "items.csv.gz",
            gzip.compress(b"item_id,title\n1,A\n", mtime=0)[:-9],
            "cannot be read to its end",
        ),
    ],
)
def test_bad_files_are_rejected(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LogError, match=message):
        read_items(path)


@pytest.mark.parametrize("format", ["auto", *ITEM_FORMATS])
def test_an_empty_file_is_rejected_in_every_format(tmp_path: Path, format: str) -> None:
    path = tmp_path / "items"
    path.touch()
    with pytest.raises(LogError, match=r"empty|no items|not a Parquet file"):
        read_items(path, format)


def test_a_missing_file_or_an_unknown_format_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no such file"):
        read_items(tmp_path / "missing.csv")
    with pytest.raises(LogError, match="format: 'xml'; choose auto, csv"):
        read_items(tmp_path / "missing.csv", "xml")
