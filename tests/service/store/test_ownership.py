"""Two shops on one Redis: apart by their prefixes, or the second is refused at its start."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from service.settings import Settings, SetupError
from service.store.event_export import ExportError, export_events
from service.store.events import Event
from service.store.histories import HistoryStore
from service.store.ownership import ROOT_ID, root_id
from service.store.redis_client import ResilientRedis, deployment_of
from service.telemetry.metrics import Metrics
from tests.evidence.redis_servers import RedisServer

MakeSettings = Callable[..., Settings]


@pytest.fixture
def other_root(tmp_path: Path) -> Path:
    folder = tmp_path / "other shop"
    (folder / "releases").mkdir(parents=True)
    return folder


def send(settings: Settings, user: str, *items: str) -> list[str]:
    """Add the items to the user's history, and read it."""

    async def run() -> list[str]:
        metrics = Metrics()
        redis = ResilientRedis(deployment_of(settings), settings, metrics)
        await redis.start()
        try:
            store = HistoryStore(redis, settings, metrics)
            if items:
                await store.append([Event(user_id=user, item_id=item) for item in items])
            return await store.read(user)
        finally:
            await redis.close()

    return asyncio.run(run())


def test_shops_with_different_prefixes_share_nothing(
    settings: MakeSettings, tcp: RedisServer, other_root: Path, tmp_path: Path
) -> None:
    first = settings(redis_url=tcp.url)
    second = settings(redis_url=tcp.url, releases=other_root, redis_prefix="shop-2")
    assert send(first, "anna", "a") == ["a"]
    assert send(second, "anna", "b") == ["b"]
    assert export_events(second, tmp_path / "log", other_root).events == 1
    assert export_events(first, tmp_path / "log 1", first.releases).events == 1
    names = {key.split(b":")[0] for key in tcp.execute("KEYS", "*")}
    assert names == {b"re4", b"shop-2"}


def test_the_data_of_another_root_is_refused(
    settings: MakeSettings, tcp: RedisServer, other_root: Path, tmp_path: Path
) -> None:
    own, foreign = settings(redis_url=tcp.url), settings(redis_url=tcp.url, releases=other_root)
    send(own, "anna", "a")
    with pytest.raises(SetupError, match=r"--redis-prefix: re4: .* another root") as refused:
        send(foreign, "anna", "b")
    assert str(other_root / ROOT_ID) in str(refused.value)
    with pytest.raises(ExportError, match="another root"):
        export_events(foreign, tmp_path / "log", other_root)
    assert send(own, "anna") == ["a"]
    (other_root / ROOT_ID).write_text((own.releases / ROOT_ID).read_text())
    assert send(foreign, "anna") == ["a"], "a root that moved or was copied, as the message says"


def test_data_of_an_earlier_version_is_claimed_by_the_first_root(
    settings: MakeSettings, tcp: RedisServer, other_root: Path
) -> None:
    tcp.execute("RPUSH", f"re4:{{{crc32(b'anna') % 64}}}:history:anna", "old")
    first = settings(redis_url=tcp.url)
    assert send(first, "anna", "new") == ["old", "new"]
    with pytest.raises(SetupError):
        send(settings(redis_url=tcp.url, releases=other_root), "anna")


def test_a_redis_that_comes_up_later_is_checked_before_it_is_used(
    settings: MakeSettings, tcp: RedisServer, other_root: Path
) -> None:
    send(settings(redis_url=tcp.url), "anna", "a")
    owner = tcp.execute("GET", "re4:owner")
    chosen = settings(redis_url=tcp.url, releases=other_root, breaker_cooldown_s=0.01)

    async def run() -> dict[str, str]:
        metrics = Metrics()
        redis = ResilientRedis(deployment_of(chosen), chosen, metrics)
        tcp.stop()
        await redis.start()
        tcp.start()
        tcp.execute("SET", "re4:owner", owner)
        async with asyncio.timeout(20):
            while not any("foreign_data" in reason for reason in redis.failing.values()):
                try:
                    await HistoryStore(redis, chosen, metrics).read("anna")
                except Exception:
                    await asyncio.sleep(0.01)
                else:
                    pytest.fail("another root's data was read")
        await redis.close()
        return redis.failing

    assert asyncio.run(run())


def test_the_service_ends_with_one_sentence(
    settings: MakeSettings, tcp: RedisServer, other_root: Path
) -> None:
    send(settings(redis_url=tcp.url), "anna", "a")
    options = ("--redis-url", tcp.url, "--redis-timeout-ms", "5000", "--port", "0")
    ended = subprocess.run(
        [sys.executable, "-m", "service", "--releases", other_root, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 1, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert "--redis-prefix: re4: this Redis holds the data of another root" in last
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("prefix", ["", "{a}", "a b", "x" * 65, ":a"])
def test_a_prefix_that_cannot_be_one_is_refused(settings: MakeSettings, prefix: str) -> None:
    with pytest.raises(ValueError, match="a prefix is 1 to 64 letters"):
        settings(redis_prefix=prefix)


def test_a_root_keeps_its_id(tmp_path: Path) -> None:
    first = root_id(tmp_path)
    assert first
    assert root_id(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [ROOT_ID]
    assert root_id(tmp_path / "missing") is None
