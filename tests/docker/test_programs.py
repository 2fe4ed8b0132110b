"""The small programs of the stack."""

import random
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from training.data.synthetic import write_synthetic


def test_passwords_are_created_once(provision: ModuleType, tmp_path: Path) -> None:
    assert provision.provision(tmp_path) == ["redis-password", "grafana-password"]
    created = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert created["redis.conf"] == f"requirepass {created['redis-password']}\n"
    assert created["redis-password"] != created["grafana-password"]
    assert min(len(created["redis-password"]), len(created["grafana-password"])) >= 40
    assert provision.provision(tmp_path) == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == created


def test_an_existing_password_is_kept(provision: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "redis-password").write_text("chosen-by-hand\n")
    assert provision.provision(tmp_path) == ["grafana-password"]
    assert (tmp_path / "redis.conf").read_text() == "requirepass chosen-by-hand\n"


def test_the_service_may_start_without_a_release_if_the_log_is_small(
    bootstrap: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "few.csv"
    log.write_text("user_id,item_id,timestamp\n" + "".join(f"u{i},a,{i}\n" for i in range(9)))
    config = tmp_path / "night.toml"
    config.write_text(f'root = "{tmp_path}"\nevents = "{tmp_path / "events"}"\nlog = "{log}"\n')
    assert bootstrap.bootstrap(config) == 0
    assert "wait for more" in capsys.readouterr().out
    config.write_text(config.read_text().replace("few.csv", "none.csv"))
    assert bootstrap.bootstrap(config) == 1


def test_visitors_replay_histories_of_the_log(traffic: ModuleType, tmp_path: Path) -> None:
    write_synthetic(tmp_path, users=50, items=100)
    log = tmp_path / "interactions.parquet"
    visitors = list(islice(traffic.visitors(log, random.Random(0)), 20))
    assert len({user_id for user_id, _ in visitors}) == 20
    interactions = traffic.read_log(log)
    histories = {
        tuple(interactions.item_ids[interactions.items[start:end]])
        for start, end in zip(interactions.offsets[:-1], interactions.offsets[1:], strict=True)
    }
    assert {tuple(items) for _, items in visitors} <= histories
