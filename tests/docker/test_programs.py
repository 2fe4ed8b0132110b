"""The small programs of the stack."""

import random
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from training.data.synthetic import write_synthetic


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


def test_the_service_may_start_without_a_release_where_the_log_is_small(
    bootstrap: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "few.csv"
    log.write_text("user_id,item_id,timestamp\n" + "".join(f"u{i},a,{i}\n" for i in range(9)))
    settings = tmp_path / "night.toml"
    settings.write_text(f'root = "{tmp_path}"\nevents = "{tmp_path / "events"}"\nlog = "{log}"\n')
    assert bootstrap.bootstrap(settings) == 0
    assert "wait for more" in capsys.readouterr().out
    settings.write_text(settings.read_text().replace("few.csv", "none.csv"))
    assert bootstrap.bootstrap(settings) == 1


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
