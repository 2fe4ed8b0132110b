"""Windows of any rows: DuckDB and memory write the same file."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.data import window_rows
from training.data.errors import LogError
from training.data.event_window import DAY_S, read_window, write_window
from training.data.log_options import LogOptions

pytest.importorskip("duckdb")

USERS = st.sampled_from(["ann", "bob", "eve"])
ITEMS = st.sampled_from(["tea", "cup", "\u8336"])
DAYS = st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.5, 3.0, 9.0])
BASE = st.lists(st.tuples(USERS, ITEMS, DAYS, st.sampled_from(["view", "forget", ""])), max_size=8)
EVENTS = st.lists(
    st.tuples(
        USERS,
        ITEMS,
        DAYS,
        st.sampled_from(["view", "buy", "return", "impression", "forget", None]),
        st.sampled_from(["1", "2", None]),
        st.sampled_from(["5-1", "5-2", "7-1", None]),
    ),
    min_size=1,
    max_size=25,
)
NAMES = ["user_id", "item_id", "timestamp", "event", "event_id", "entry"]


def window_of(folder: Path, log: Path | None, engine: str, **given: Any) -> Any:
    """Counts and the bytes of the file; or the text of the LogError."""
    weights, types, days = given["weights"], given["types"], given["days"]
    options = LogOptions.model_validate(
        {"event_weights": weights, "log_engine": engine, "memory_limit": 1 << 29}
    )
    try:
        window = read_window(folder / "events", log, options, types, days, 5 * DAY_S)
    except LogError as error:
        return str(error)
    write_window(window, folder / "window.parquet")
    return window.counts, (folder / "window.parquet").read_bytes()


@given(
    base=BASE,
    events=EVENTS,
    weights=st.sampled_from([(), ("view=0.2", "buy=1")]),
    types=st.sampled_from([(), ("view",), ("buy", "other")]),
    days=st.sampled_from([None, 1.0, 2.0]),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_same_file_from_any_rows(
    tmp_path: Path, base: list[Any], events: list[Any], **given: Any
) -> None:
    log = tmp_path / "base.csv" if base else None
    if log:
        lines = "".join(f"{u},{i},{day * DAY_S},{event}\n" for u, i, day, event in base)
        log.write_text(f"user_id,item_id,timestamp,event\n{lines}")
    (tmp_path / "events/date=1970-01-02").mkdir(parents=True, exist_ok=True)
    columns = dict(zip(NAMES, map(list, zip(*events, strict=True)), strict=True))
    columns["timestamp"] = [day * DAY_S for day in columns["timestamp"]]
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    pq.write_table(table, tmp_path / "events/date=1970-01-02/part.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_rows, "_PARTITION_BYTES", 1 << 27)
        expected, got = (window_of(tmp_path, log, name, **given) for name in ("memory", "duckdb"))
    assert got == expected
