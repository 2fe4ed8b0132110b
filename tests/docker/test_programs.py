"""The small programs of the stack."""

import random
from itertools import islice
from pathlib import Path
from types import ModuleType

from training.synthetic import write_synthetic


def test_passwords_are_made_once(provision: ModuleType, tmp_path: Path) -> None:
    assert provision.provision(tmp_path) == ["redis-password", "grafana-password"]
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made["redis.conf"] == f"requirepass {made['redis-password']}\n"
    assert made["redis-password"] != made["grafana-password"]
    assert min(len(made["redis-password"]), len(made["grafana-password"])) >= 40
    assert provision.provision(tmp_path) == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == made


def test_a_password_of_ones_own_stays(provision: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "redis-password").write_text("of-my-own\n")
    assert provision.provision(tmp_path) == ["grafana-password"]
    assert (tmp_path / "redis.conf").read_text() == "requirepass of-my-own\n"


def test_visitors_take_what_users_of_the_log_took(traffic: ModuleType, tmp_path: Path) -> None:
    write_synthetic(tmp_path, users=50, items=100)
    log = tmp_path / "interactions.parquet"
    coming = list(islice(traffic.visitors(log, random.Random(0)), 20))
    assert len({user_id for user_id, _ in coming}) == 20
    read = traffic.read_log(log)
    histories = {
        tuple(read.item_ids[read.items[start:end]])
        for start, end in zip(read.offsets[:-1], read.offsets[1:], strict=True)
    }
    assert {tuple(items) for _, items in coming} <= histories
