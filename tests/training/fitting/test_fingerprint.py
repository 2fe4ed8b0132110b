"""What a training run that was interrupted must have in common with the one that continues it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.config import FitConfig
from training.fitting.fingerprint import fingerprint
from training.fitting.fit import prepare_log

CONFIG = FitConfig(min_user_interactions=1, min_item_interactions=1)


@pytest.fixture
def key_of(tmp_path: Path):
    """Makes the key of a log of these rows, and of titles and categories."""

    def key(rows, details=(), config=CONFIG):
        log, items = tmp_path / "log.csv", tmp_path / "items.csv"
        lines = [f"{user},{item},{time}" for user, item, time in rows]
        log.write_text("\n".join(["user_id,item_id,timestamp", *lines]))
        items.write_text("\n".join(["item_id,title,category", *map(",".join, details)]))
        data = prepare_log(log, items if details else None, config)
        return fingerprint(config, data.catalog, data.log)

    return key


ROWS = [(f"u{user}", f"i{(user + n) % 9}", n) for user in range(20) for n in range(6)]


def test_it_depends_on_content_alone(key_of):
    assert key_of(ROWS) == key_of(ROWS[::-1])


@pytest.mark.parametrize(
    "changed",
    [
        [(user.replace("u1", "v1"), item, time) for user, item, time in ROWS],
        [(user, item, time + 1) for user, item, time in ROWS],
        [(user, item, 2 * time) for user, item, time in ROWS],
        [(user, item.replace("i1", "j"), time) for user, item, time in ROWS],
        ROWS[:-1],
    ],
    ids=["users", "times", "time-gaps", "items", "interactions"],
)
def test_other_users_items_or_times_are_another_run(key_of, changed):
    assert key_of(changed) != key_of(ROWS)


def test_other_settings_or_details_are_another_run(key_of):
    details = [("i1", "One", "a"), ("i2", "Two", "b")]
    keys = {
        key_of(ROWS),
        key_of(ROWS, config=CONFIG.model_copy(update={"seed": 1})),
        key_of(ROWS, details),
        key_of(ROWS, [("i1", "One", "b"), ("i2", "Two", "a")]),
        key_of(ROWS, [("i1", "1", "a"), ("i2", "Two", "b")]),
    }
    assert len(keys) == 5


def test_ids_that_only_concatenate_alike_are_another_run(planted: Path):
    data = prepare_log(planted / "interactions.parquet", None, FitConfig())
    users = data.log.user_ids.copy()
    users[0], users[1] = users[0] + users[1][:1], users[1][1:]
    other = replace(data.log, user_ids=np.array(users, object))
    keys = {fingerprint(FitConfig(), data.catalog, log) for log in (data.log, other)}
    assert len(keys) == 2


def test_other_weights_or_other_event_types_are_another_run(tmp_path: Path):
    def key(kinds, *weights):
        log = tmp_path / "log.csv"
        lines = [f"{u},{i},{t},{kinds[t % len(kinds)]}" for u, i, t in ROWS]
        log.write_text("\n".join(["user_id,item_id,timestamp,event", *lines]))
        config = CONFIG.model_copy(update={"event_weights": weights})
        data = prepare_log(log, None, config)
        return fingerprint(config, data.catalog, data.log)

    assert key(["view", "buy"]) == key(["buy"])
    assert key(["view", "buy"], "view=0.2") == key(["view", "cart"], "view=0.2")
    keys = {
        key(["view", "buy"]),
        key(["view", "buy"], "view=0.2"),
        key(["view", "buy"], "view=0.3"),
        key(["buy", "view"], "view=0.2"),
    }
    assert len(keys) == 4
