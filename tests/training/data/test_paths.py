"""Logs in object stores, through fsspec: here its store in memory."""

import gzip
import importlib.util
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.errors import LogError
from training.data.interactions import Interactions
from training.data.item_metadata import read_items
from training.data.log_options import LogSource
from training.data.paths import existing_input, input_path
from training.data.readers import read_log
from training.nightly.config import NightConfig

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("upath")

Row = tuple[str, str, float]
RowsOf = Callable[[Interactions], list[Row]]
CSV = b"user_id,item_id,timestamp\nann,tea,20\nbob,cup,7.5\n"
JSON = b'{"user_id": "ann", "item_id": "tea", "timestamp": 20}\n'
ROWS = [("ann", "tea", 20.0), ("bob", "cup", 7.5)]


def parquet() -> bytes:
    columns = {"user_id": ["ann", "bob"], "item_id": ["tea", "cup"], "timestamp": [20.0, 7.5]}
    pq.write_table(pa.table(columns), file := io.BytesIO())
    return file.getvalue()


def zipped() -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("log.csv", CSV)
    return file.getvalue()


@pytest.fixture
def store() -> Iterator[Callable[..., str]]:
    """Writes a file into the store and returns its URL."""
    memory = fsspec.filesystem("memory")

    def write(content: bytes, name: str = "log.csv") -> str:
        memory.pipe_file(f"/bucket/{name}", content)
        return f"memory://bucket/{name}"

    yield write
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (CSV, "log.csv"),
        (gzip.compress(CSV), "log.csv.gz"),
        (pa.compress(CSV, "zstd", asbytes=True), "log.csv.zst"),
        (zipped(), "log.zip"),
        (parquet(), "log.parquet"),
        (parquet(), "without-an-ending"),
    ],
    ids=["csv", "gzip", "zstd", "zip", "parquet", "parquet by content"],
)
@pytest.mark.parametrize("engine", ["auto", "duckdb"])
def test_each_kind_of_file_is_read(
    store: Callable[..., str], rows_of: RowsOf, content: bytes, name: str, engine: str
) -> None:
    source = LogSource.model_validate({"log_engine": engine})
    assert rows_of(read_log(input_path(store(content, name)), source=source)) == ROWS


def test_a_folder_is_one_log_in_order_of_names(store: Callable[..., str], rows_of: RowsOf) -> None:
    store(CSV, "log/date=2/part.csv")
    store(CSV.replace(b"ann", b"eve"), "log/date=1/part.csv")
    store(b"", "log/_SUCCESS")
    store(b"no log", "log/.hidden")
    log = read_log(existing_input("memory://bucket/log"), source=LogSource(columns=("time=#",)))
    assert [(user, time) for user, _, time in rows_of(log)] == [
        *(("ann", 2.0), ("bob", 1.0), ("bob", 3.0), ("eve", 0.0))
    ]


def test_errors_name_the_url_and_the_line(store: Callable[..., str]) -> None:
    url = store(CSV + b"ann,tea\n")
    with pytest.raises(LogError, match=r"memory://bucket/log\.csv, line 4: 2 fields"):
        read_log(input_path(url))
    url = store(JSON + b"{}\n", "log.json")
    with pytest.raises(LogError, match=r"memory://bucket/log\.json, line 2: no user id"):
        read_log(input_path(url))
    with pytest.raises(ValueError, match="memory://bucket/none: no such file or folder"):
        existing_input("memory://bucket/none")


def test_item_files_are_read(store: Callable[..., str]) -> None:
    items = read_items(input_path(store(b"item_id,title,category\ntea,Tea,Drinks\n", "items.csv")))
    assert items["tea"].title == "Tea"


def test_a_nightly_run_may_have_its_base_log_there(store: Callable[..., str]) -> None:
    url = store(CSV)
    config = NightConfig.model_validate({"root": "shop", "events": "events", "log": url})
    assert config.log is not None
    assert config.log.read_bytes() == CSV
    assert config.settings()["log"] == url


def test_an_unknown_scheme_and_a_missing_library_are_named() -> None:
    with pytest.raises(ValueError, match="nowhere://x"):
        input_path("nowhere://x")
    if importlib.util.find_spec("s3fs") is None:
        with pytest.raises(ValueError, match=r"s3://bucket/log: .*s3fs"):
            input_path("s3://bucket/log")


def test_local_paths_stay_paths(tmp_path: Path) -> None:
    assert existing_input(str(tmp_path)) == tmp_path
    assert type(input_path("log.csv")) is type(Path("log.csv"))
