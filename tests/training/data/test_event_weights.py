"""Weights of event types: how they are given, read, and carried to the packed log."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from training.config import ConfigError, FitConfig, read_config
from training.data.errors import LogError, UnmatchedError
from training.data.interactions import Interactions
from training.data.log_options import LogSource
from training.data.packed_log import pack, pack_all, prepare
from training.data.readers import read_log
from training.fitting.fit import prepare_log

Write = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("both_engines")

WEIGHTS = LogSource(event_weights=("view=0.2", "cart=0"))
HEADER = "user_id,item_id,timestamp,event\n"


def weights_of(log: Interactions) -> list[tuple[str, str, float]]:
    """User, item and weight of each interaction, in order."""
    assert log.weights is not None
    users, items = log.user_ids[log.users], log.item_ids[log.items]
    return [*zip(users, items, log.weights.astype(float).round(6).tolist(), strict=True)]


@pytest.mark.parametrize(
    "given",
    [
        "view=0.2,purchase=1",
        " purchase = 1e0, view=.2",
        ("purchase=1", "view=0.2"),
        {"view": 0.2, "purchase": 1},
    ],
)
def test_they_are_given_as_text_parts_or_a_table(given: object) -> None:
    config = read_config(None, {"event_weights": given})
    assert config.event_weights == ("purchase=1.0", "view=0.2")
    assert config.weights_by_event == {"view": 0.2, "purchase": 1.0}
    assert FitConfig.from_stored(config.model_dump(mode="json")) == config


def test_a_type_may_have_commas_and_equals_signs() -> None:
    source = LogSource.model_validate({"event_weights": {"buy, now": 2, "a=b": 0}})
    assert source.weights_by_event == {"a=b": 0.0, "buy, now": 2.0}


@pytest.mark.parametrize(
    "given", ["view", "=1", "view=", "view=some", "view=-1", "view=nan", "view=1e7", "view=inf"]
)
def test_what_is_no_weight_is_refused(given: str) -> None:
    allowed = "is not TYPE=WEIGHT; a weight is a number from 0 to 1,000,000"
    with pytest.raises(ConfigError, match=f"'{given}' {allowed}"):
        read_config(None, {"event_weights": given})


def test_a_type_has_one_weight() -> None:
    with pytest.raises(ConfigError, match=r"two weights for view: 0\.2 and 1; give one"):
        read_config(None, {"event_weights": "view=0.2,view=1"})


def test_interactions_have_the_weight_of_their_type(write: Write) -> None:
    """A type that is not named, or is missing, has weight 1."""
    rows = "v,b,1,cart\nu,a,3,view\nu,b,1,purchase\nu,c,2,\n"
    log = read_log(write(HEADER + rows), source=WEIGHTS)
    assert weights_of(log) == [("u", "b", 1), ("u", "c", 1), ("u", "a", 0.2), ("v", "b", 0)]
    assert read_log(write(HEADER + rows)).weights is None


def test_every_layout_with_an_event_column_has_them(write: Write) -> None:
    files = {
        "retailrocket": "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,u,view,a,\n1433221332118,u,addtocart,b,\n",
        "rees46": "event_time,event_type,product_id,category_id,user_id\n"
        "2019-10-01 00:00:00 UTC,view,a,1,u\n2019-10-01 00:00:01 UTC,cart,b,1,u\n",
        "json": '{"user_id":"u","item_id":"a","timestamp":1,"event":"view"}\n'
        '{"user_id":"u","item_id":"b","timestamp":2}\n',
        "otto": '{"session":"u","events":[{"aid":"a","ts":1000,"type":"view"},'
        '{"aid":"b","ts":2000,"type":"carts"}]}\n',
        "taobao": "u,a,1,view,1\nu,b,1,buy,2\n",
    }
    source = LogSource(event_weights=("view=0.2",))
    for format, content in files.items():
        log = read_log(write(content), format, source=source)
        assert weights_of(log) == [("u", "a", 0.2), ("u", "b", 1)], format
    renamed = source.model_copy(update={"columns": ("event=kind",)})
    log = read_log(write("user_id,item_id,timestamp,kind\nu,a,1,view\n"), source=renamed)
    assert weights_of(log) == [("u", "a", 0.2)]


def test_event_types_that_are_filtered_out_have_no_weight_to_give(write: Write) -> None:
    path = write(HEADER + "u,a,1,view\nu,b,2,cart\nu,c,3,buy\n")
    log = read_log(path, events=["buy", "view"], source=WEIGHTS)
    assert weights_of(log) == [("u", "a", 0.2), ("u", "c", 1)]


def test_a_log_without_event_types_is_refused_in_one_sentence(write: Write) -> None:
    path = write("user_id,item_id,timestamp\nu,a,1\n")
    with pytest.raises(LogError) as error:
        read_log(path, source=WEIGHTS)
    assert str(error.value) == (
        f"{path}: no event types for event_weights; name their column with --columns event=NAME, "
        "or leave event_weights out"
    )


def test_a_type_that_is_not_utf_8_is_a_bad_row(write: Write) -> None:
    path = write(HEADER.encode() + b"u,a,1,view\nu,b,2,\xff\n")
    with pytest.raises(LogError, match=r"line 3: event b'\\xff' is not UTF-8"):
        read_log(path, source=WEIGHTS)


@pytest.mark.parametrize("order", [1, -1])
def test_of_repeated_rows_the_one_of_the_greatest_weight_stays(write: Write, order: int) -> None:
    rows = ["u,a,1,cart", "u,a,1,view", "u,b,1,view", "u,a,1,buy", "u,a,2,cart", "u,b,1,view"]
    log = read_log(write(HEADER + "\n".join(rows[::order]) + "\n"), source=WEIGHTS)
    assert sorted(weights_of(log)) == [("u", "a", 0), ("u", "a", 1), ("u", "b", 0.2)]
    assert log.duplicates == 3
    plain = read_log(write(HEADER + "\n".join(rows[::order]) + "\n"))
    assert_array_equal(log.items, plain.items)
    assert_array_equal(log.times, plain.times)


def test_they_stay_with_their_interactions_through_every_selection(write: Write) -> None:
    """A weight says which interaction it belongs to."""
    random = np.random.default_rng(0)
    rows = [(f"u{random.integers(9)}", f"i{random.integers(12)}", t) for t in range(300)]
    lines = "".join(f"{u},{i},{t},at {t}\n" for u, i, t in rows)
    named = tuple(f"at {t}={t}" for _, _, t in rows)
    log = read_log(write(HEADER + lines), source=LogSource(event_weights=named)).newest(20)
    assert_array_equal(log.weights, log.times)
    catalog, packed = prepare(log, 5, int(np.median(np.bincount(log.items))))
    assert len(packed.rows) < len(log)
    assert_array_equal(packed.weights, packed.times)
    for part in (
        packed.take(np.array([2, 0])),
        packed.truncate(packed.offsets[1:] - 3),
        pack(log, catalog),
        pack_all(log, catalog),
    ):
        assert part.weights is not None
        assert len(part.rows)
        assert part.weights.dtype == np.float32
        assert_array_equal(part.weights, part.times)


def test_a_type_that_no_row_has_is_reported_and_refused_if_no_other_has_one(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "".join(f"u{n % 10},i{n % 7},{n},{'buy' if n % 3 else 'view'}\n" for n in range(400))
    path = write(HEADER + rows)
    prepare_log(path, None, FitConfig(event_weights=("view=0.2", "veiw=0")))
    assert "event type 'veiw': none of 400 interactions has it; they are buy, view" in caplog.text
    with pytest.raises(UnmatchedError, match=r"0 of 400 interactions have an event type of veiw;"):
        prepare_log(path, None, FitConfig(event_weights=("veiw=0.2",)))


def test_a_log_of_weight_0_alone_leaves_nothing_to_train_on(write: Write) -> None:
    rows = "".join(f"u{n % 10},i{n % 7},{n},view\n" for n in range(400))
    with pytest.raises(LogError, match=r"users have more interactions of an event weight above 0"):
        prepare_log(write(HEADER + rows), None, FitConfig(event_weights=("view=0",)))
