"""A filter or join that matches little is reported with both counts; one that matches nothing is
refused."""

from pathlib import Path

import numpy as np
import pytest

from index.retrieval.catalog import Catalog
from training.data.errors import LogError
from training.data.interactions import Interactions
from training.data.item_metadata import ItemDetails, read_items
from training.data.packed_log import pack, prepare
from training.data.readers import read_log

HEADER = "user_id,item_id,timestamp,event\n"


@pytest.fixture
def log(log_of) -> Interactions:
    """Ten users of the same ten items."""
    return log_of([(f"u{u}", f"i{i}", float(i)) for u in range(10) for i in range(10)])


def details(*ids: str, title: str | None = "Title") -> dict[str, ItemDetails]:
    return {key: ItemDetails(title, None) for key in ids}


def test_an_item_file_of_other_ids_is_refused(log) -> None:
    with pytest.raises(LogError) as refused:
        prepare(log, items=details("I0", "I1", "I2"))
    assert "0 of 10 items of the log are in the item file" in str(refused.value)
    assert "'i0'" in str(refused.value)
    assert "'I0'" in str(refused.value)


def test_an_item_file_of_few_of_the_items_is_reported(log, caplog) -> None:
    catalog, _ = prepare(log, items=details("i0", "i1", "I2"))
    assert sum(title is not None for title in catalog.titles) == 2
    (message,) = caplog.messages
    assert "2 of 10 items of the log are in the item file" in message
    caplog.clear()
    prepare(log, items=details(*(f"i{n}" for n in range(6))))
    assert caplog.messages == []


def test_an_item_file_without_any_title_or_category_is_reported(write, caplog) -> None:
    read_items(write("item_id,name\na,A\nb,B\n", "items.csv"))
    (message,) = caplog.messages
    assert "0 of 2 items have a title or category" in message


def test_a_core_of_few_of_the_users_is_reported(log_of, caplog) -> None:
    core = [(f"u{u}", f"i{i}", float(i)) for u in range(8) for i in range(8)]
    rare = [(f"rare-{u}", "i0", 0.0) for u in range(500)]
    left = log_of(core + rare).k_core(5, 5)
    assert len(left.user_ids) == 8
    (message,) = caplog.messages
    assert "8 of 508 users" in message
    assert "64 of 564 interactions" in message
    assert "min_user_interactions" in message


def test_a_core_of_most_of_the_log_is_not_reported(log, caplog) -> None:
    log.k_core(5, 5)
    assert caplog.messages == []


def test_a_catalogue_of_few_of_the_items_is_reported(log, caplog) -> None:
    ids = ["i0", "i1", "x"]
    pack(log, Catalog(ids, np.array([3, 2, 1]), [None] * 3, [None] * 3))
    (message,) = caplog.messages
    assert "20 of 100 interactions are with one of the catalogue's 3 items" in message


def test_an_event_type_that_does_not_occur_is_reported(write, caplog) -> None:
    path: Path = write(f"{HEADER}u,a,1,view\nu,b,2,buy\nv,a,3,view\n")
    assert len(read_log(path, events=("view", "purchse"))) == 2
    (message,) = caplog.messages
    assert "event type 'purchse': none of 3 interactions has it" in message
    with pytest.raises(LogError, match="none of 3 interactions has event purchse"):
        read_log(path, events=("purchse",))
