"""DuckDB and memory give the same Interactions, packed log and split, byte by byte."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.data import array_store, database_rows, interactions, packed_log
from training.data.array_store import MappedArray
from training.data.errors import LogError
from training.data.interactions import Interactions
from training.data.log_options import LogOptions, LogSource
from training.data.packed_log import PackedLog
from training.data.readers import read_log
from training.evaluation.protocols import split_log

pytest.importorskip("duckdb")

MIB_512 = 1 << 29


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """So small that a few rows are several blocks and partitions."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (array_store, database_rows, interactions):
            patch.setattr(module, "BLOCK", 7)
        patch.setattr(packed_log, "_BLOCK_USERS", 2)
        patch.setattr(database_rows, "_SORTED_BYTES", MIB_512 // 9)
        yield


def columns_of(log: Interactions | PackedLog | None) -> list[NDArray[Any]]:
    if isinstance(log, Interactions):
        events = [] if log.events is None else [*log.events]
        return [log.items, log.times, log.offsets, log.user_ids, log.item_ids, *events]
    assert log is not None
    weights = [] if log.weights is None else [log.weights]
    return [log.rows, log.times, log.offsets, log.user_ids, *weights]


def assert_same(left: Interactions | PackedLog, right: Interactions | PackedLog) -> None:
    for one, other in zip(columns_of(left), columns_of(right), strict=True):
        assert one.dtype == other.dtype
        if one.dtype == object:
            assert one.tolist() == other.tolist()
        else:
            assert one.tobytes() == other.tobytes()


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "é", "z\0", "Z", "10", "9"]),
        st.sampled_from(["tea", "cup", "\U0001f600", "a b", "a", "茶"]),
        st.sampled_from([0.0, 1.0, 2.0, 1e-300, -1.0, -0.0, 86400.125]),
        st.sampled_from(["view", "buy", "", "cart", "return", "dislike"]),
    ),
    min_size=1,
    max_size=60,
)
SOURCES = st.sampled_from(
    [
        {},
        {"max_user_interactions": 3},
        {"event_effects": ("buy=undo", "return=history", "view=none")},
        {"event_weights": ("view=0.2", "buy=1", "cart=0")},
        {"event_weights": ("view=1", "cart=0"), "max_user_interactions": 4},
    ]
)


def read(path: Path, engine: str, source: dict[str, Any]) -> Interactions:
    options = {**source, "log_engine": engine, "memory_limit": MIB_512}
    return read_log(path, source=LogSource.model_validate(options))


@given(rows=ROWS, source=SOURCES, limits=st.tuples(st.integers(1, 4), st.integers(1, 4)))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_same_from_any_rows(
    tmp_path: Path, rows: list[Any], source: dict[str, Any], limits: tuple[int, int]
) -> None:
    path = tmp_path / "log.csv"
    lines = "".join(f"{','.join(map(str, row))}\n" for row in rows)
    path.write_text(f"user_id,item_id,timestamp,event\n{lines}")
    memory, files = (
        result_of(lambda engine=engine: read(path, engine, source))
        for engine in ("memory", "duckdb")
    )
    if isinstance(memory, str):
        assert memory == files
        return
    assert isinstance(files.items, MappedArray)
    assert_same(memory, files)
    assert memory.duplicates == files.duplicates
    prepared = [
        result_of(lambda log=log: packed_log.prepare(log, *limits)) for log in (memory, files)
    ]
    if isinstance(prepared[0], str):
        assert prepared[0] == prepared[1]
        return
    (catalog, packed), (same_catalog, same_packed) = prepared
    assert catalog.ids == same_catalog.ids
    assert catalog.popularity.tolist() == same_catalog.popularity.tolist()
    assert_same(packed, same_packed)
    assert_same(packed_log.pack(memory, catalog), packed_log.pack(files, catalog))
    assert_same(packed_log.pack_all(memory, catalog), packed_log.pack_all(files, catalog))
    for protocol in LogOptions.model_fields["split"].annotation.__args__:  # type: ignore[union-attr]
        assert_same_split(protocol, packed, same_packed, len(catalog))


def assert_same_split(name: Any, left: PackedLog, right: PackedLog, items: int) -> None:
    one, other = (
        result_of(lambda log=log: split_log(name, log, items, 0.25, 0)) for log in (left, right)
    )
    if isinstance(one, str):
        assert one == other
        return
    assert_same(one.train, other.train)
    assert (one.validation, one.test) == (other.validation, other.test)


def result_of(work: Callable[[], Any]) -> Any:
    """The result, or the text of the LogError."""
    try:
        return work()
    except LogError as error:
        return str(error)
