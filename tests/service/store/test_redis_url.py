"""The URL of a Redis is parsed or refused, and its password is never shown."""

from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster, SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection

from service.settings import Settings
from service.store.redis_client import deployment_of
from service.store.redis_url import parse_url


def options(url: str, password: str | None = None) -> dict[str, object]:
    """The options of a client's connections."""
    client = parse_url(url, password).client()
    if isinstance(client, RedisCluster):
        return client.connection_kwargs
    return client.connection_pool.connection_kwargs


def test_one_server() -> None:
    connection = options("redis://me:p%40ss@somewhere:7000/3?socket_keepalive=no")

    assert (connection["host"], connection["port"], connection["db"]) == ("somewhere", 7000, 3)
    assert (connection["username"], connection["password"]) == ("me", "p@ss")
    assert options("unix:///run/redis.sock?db=2")["path"] == "/run/redis.sock"


def test_sentinels() -> None:
    url = "redis+sentinel://me:p%2Fss@one:1,[::1]:2,three/my-name?db=4&sentinel_password=s"
    client = parse_url(url).client()

    assert isinstance(client, Redis)
    pool = client.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert pool.service_name == "my-name"
    assert (pool.connection_kwargs["db"], pool.connection_kwargs["password"]) == (4, "p/ss")
    sentinels = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"]) for each in sentinels] == [
        ("one", 1),
        ("::1", 2),
        ("three", 26379),
    ]
    assert {each["password"] for each in sentinels} == {"s"}


def test_a_cluster() -> None:
    client = parse_url("redis+cluster://:pass@one:1,two").client()

    assert isinstance(client, RedisCluster)
    assert [(node.host, node.port) for node in client.startup_nodes] == [("one", 1), ("two", 6379)]
    assert client.connection_kwargs["password"] == "pass"


def test_tls() -> None:
    tls = parse_url("rediss://a").client()
    assert isinstance(tls, Redis)
    assert tls.connection_pool.connection_class is SSLConnection
    sentinel_client = parse_url("rediss+sentinel://a/name?ssl_ca_certs=/ca.pem").client()
    assert isinstance(sentinel_client, Redis)
    pool = sentinel_client.connection_pool
    assert pool.connection_class is SentinelManagedSSLConnection
    assert pool.connection_kwargs["ssl_ca_certs"] == "/ca.pem"
    [sentinel] = pool.sentinel_manager.sentinels
    assert sentinel.connection_pool.connection_class is SSLConnection
    assert options("rediss+cluster://a")["connection_class"] is SSLConnection


@pytest.mark.parametrize("url", ["redis://a", "redis+sentinel://a/name", "redis+cluster://a"])
def test_the_password_may_come_from_a_file(tmp_path: Path, url: str) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    settings = Settings(
        releases=tmp_path,
        redis_url=url,
        redis_password_file=tmp_path / "password",
    )

    client = deployment_of(settings).client()
    pool = client if isinstance(client, RedisCluster) else client.connection_pool
    assert pool.connection_kwargs["password"] == "hunter2"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@a",
        "redis:hunter2",
        "redis://:hunter2@a:port",
        "redis://:hunter2@a:99999999",
        "redis://:hunter2@a?colour=red",
        "redis+sentinel://:hunter2@a",
        "redis+sentinel://:hunter2@a,/name",
        "redis+sentinel://:hunter2@a/name/other",
        "redis+sentinel://:hunter2@a/name?db=two",
        "redis+cluster://:hunter2@",
        "redis+cluster://:hunter2@a/1",
        "redis+cluster://:hunter2@a?db=1",
    ],
)
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^the URL ") as raised:
        parse_url(url)

    assert "hunter2" not in str(raised.value)
