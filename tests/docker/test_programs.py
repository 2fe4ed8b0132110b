"""The small programs of the stack."""

import random
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from service.settings import check_root
from training.data.synthetic import write_synthetic


@pytest.fixture
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tmp_path_factory.mktemp(name) for name in ("redis", "grafana")}


def test_each_program_gets_its_own_secrets_and_no_others(
    provision: ModuleType, tmp_path: Path, copies: dict[str, Path]
) -> None:
    provision.provision(tmp_path, copies)
    given = {name: {path.name for path in copies[name].iterdir()} for name in copies}
    assert given == {"redis": {"redis-password", "redis.conf"}, "grafana": {"grafana-password"}}
    for folder in copies.values():
        for path in folder.iterdir():
            assert path.read_text() == (tmp_path / path.name).read_text()


def test_passwords_are_created_once(
    provision: ModuleType, tmp_path: Path, copies: dict[str, Path]
) -> None:
    assert provision.provision(tmp_path, copies) == ["redis-password", "grafana-password"]
    created = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert created["redis.conf"] == f"requirepass {created['redis-password']}\n"
    assert created["redis-password"] != created["grafana-password"]
    assert min(len(created["redis-password"]), len(created["grafana-password"])) >= 40
    assert provision.provision(tmp_path, copies) == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == created


def test_an_existing_password_is_kept(
    provision: ModuleType, tmp_path: Path, copies: dict[str, Path]
) -> None:
    (tmp_path / "redis-password").write_text("chosen-by-hand\n")
    assert provision.provision(tmp_path, copies) == ["grafana-password"]
    assert (tmp_path / "redis.conf").read_text() == "requirepass chosen-by-hand\n"


def test_the_service_may_start_without_a_release_if_the_log_is_small(
    bootstrap: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "few.csv"
    log.write_text("user_id,item_id,timestamp\n" + "".join(f"u{i},a,{i}\n" for i in range(9)))
    config = tmp_path / "night.toml"
    config.write_text(f'root = "{tmp_path}"\nevents = "{tmp_path / "events"}"\nlog = "{log}"\n')
    assert bootstrap.bootstrap(config) == 0
    check_root(tmp_path)  # as the service does
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
