"""Which engine reads a log: that of the option, or the one for which there is room."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from training.config import read_config
from training.data import memory
from training.data.array_store import MappedArray, SpillFolder
from training.data.errors import LogError
from training.data.log_engine import open_collection, open_window
from training.data.log_options import LogSource
from training.data.readers import read_log
from training.data.row_collection import MemoryRows
from training.data.window_rows import DatabaseWindow, MemoryWindow
from training.fitting.fit import prepare_log

Write = Callable[..., Path]
CSV = "user_id,item_id,timestamp\n" + "ann,tea,20\nbob,cup,7.5\n" * 500


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the bytes that are free."""
    return lambda size: monkeypatch.setattr(
        "training.data.log_engine.available_memory", lambda: size
    )


@pytest.fixture
def without_duckdb(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "duckdb":
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)


def is_in_memory(path: Path, **source: Any) -> bool:
    return isinstance(open_collection(path, LogSource(**source)), MemoryRows)


def test_auto_takes_duckdb_for_what_would_not_fit(
    write: Write, write_parquet: Write, tmp_path: Path, free: Callable[[int], None]
) -> None:
    pytest.importorskip("duckdb")
    columns = {"user_id": ["a"] * 1000, "item_id": ["x"] * 1000, "timestamp": [1] * 1000}
    for path in (write(CSV), write_parquet(tmp_path / "log.parquet", **columns)):
        free(10**6)
        assert is_in_memory(path)
        free(10**5)
        assert not is_in_memory(path)
        assert is_in_memory(path, log_engine="memory")
        assert is_in_memory(path, memory_limit=1 << 30)
        assert not is_in_memory(path, log_engine="duckdb", memory_limit=1 << 30)


def test_auto_counts_base_log_and_events_of_a_window(
    write: Write, write_parquet: Write, tmp_path: Path, free: Callable[[int], None]
) -> None:
    pytest.importorskip("duckdb")
    base = read_log(write(CSV))
    write_parquet(tmp_path / "events/date=2020-01-01/a.parquet", user_id=pa.array(["a"]))
    for log, size in ((base, 10**4), (None, 10**3)):
        free(10**6)
        assert isinstance(open_window(tmp_path / "events", log, LogSource()), MemoryWindow)
        free(size // 10)
        assert isinstance(open_window(tmp_path / "events", log, LogSource()), DatabaseWindow)


@pytest.mark.usefixtures("without_duckdb")
def test_without_duckdb_it_is_named_and_auto_goes_on(
    write: Write, free: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(CSV)
    with pytest.raises(LogError, match=r"pip install 're4\[large-logs\]'"):
        read_log(path, source=LogSource(log_engine="duckdb"))
    free(10)
    assert is_in_memory(path)
    assert "rows, which may take" in caplog.text


def test_a_spill_directory_has_to_be_there(write: Write, tmp_path: Path) -> None:
    source = LogSource(log_engine="duckdb", spill_directory=tmp_path / "none")
    with pytest.raises(LogError, match="none: no such folder; create it"):
        read_log(write(CSV), source=source)


def test_too_little_memory_is_told_with_the_option(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    from training.data.database import Database

    database = Database(SpillFolder(tmp_path), 10 << 20)
    with pytest.raises(LogError, match="raise --memory-limit"):
        database.run("CREATE TABLE t AS SELECT list(i) FROM range(10000000) r(i)")
    database.close()


def test_the_engine_is_an_option_of_a_fit_but_no_part_of_it(tmp_path: Path) -> None:
    given = {"log_engine": "duckdb", "memory_limit": "2GiB", "spill_directory": str(tmp_path)}
    config = read_config(None, given)
    assert (config.memory_limit, config.spill_directory) == (2 << 30, tmp_path)
    assert config.model_dump_json() == read_config(None, {}).model_dump_json()


def test_the_files_go_with_the_log_and_those_of_a_dead_process_with_the_next(
    tmp_path: Path, write: Write
) -> None:
    pytest.importorskip("duckdb")
    abandoned = tmp_path / "re4-log-abandoned"
    abandoned.mkdir()
    (abandoned / ".lock").touch()
    (abandoned / "0").write_bytes(b"left")
    options = {"log_engine": "duckdb", "spill_directory": tmp_path, "min_user_interactions": 1}
    log = write(
        "user_id,item_id,timestamp\n" + "".join(f"u{n % 20},i{n % 7},{n}\n" for n in range(200))
    )
    data = prepare_log(log, None, read_config(None, options))
    assert isinstance(data.split.train.rows, MappedArray)
    assert not abandoned.exists()
    assert len([*tmp_path.glob("re4-log-*")]) == 1
    del data
    assert [*tmp_path.glob("re4-log-*")] == []


@pytest.mark.parametrize(
    ("cgroups", "files", "free_bytes"),
    [
        ("0::/a/b\n", {"a/memory.max": "5000", "a/memory.current": "1000"}, 4000),
        ("0::/\n", {"memory.max": "max"}, 1 << 20),
        ("0::/\n", {"memory.max": "3000", "memory.current": "4000"}, 0),
        (
            "4:memory:/x\n3:cpu:/y\n",
            {"memory/x/memory.limit_in_bytes": "7000", "memory/x/memory.usage_in_bytes": "500"},
            6500,
        ),
    ],
)
def test_free_memory_is_within_the_limits_of_the_cgroups(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cgroups: str,
    files: dict[str, str],
    free_bytes: int,
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 4096 kB\nMemAvailable:    1024 kB\n")
    (tmp_path / "cgroup").write_text(cgroups)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(memory, "_MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    roots = (tmp_path, tmp_path / "memory")
    names = [
        (root, limit, used) for root, (_, limit, used) in zip(roots, memory._FILES, strict=True)
    ]
    monkeypatch.setattr(memory, "_FILES", names)
    assert memory.available_memory() == free_bytes


def test_what_is_free_here_is_positive() -> None:
    assert memory.available_memory() > 1 << 20
