"""Where Redis is: at an address, behind Sentinels, in a Cluster, or one of our own.

redis://:PASSWORD@HOST:PORT/DB                  one server; rediss:// with TLS
unix:///PATH                                    the same on a socket
redis+sentinel://HOST:PORT,HOST:PORT/NAME?db=0  the master that the Sentinels know by the name
redis+cluster://HOST:PORT,HOST:PORT             a Cluster, of which some nodes are named

The user and password of a URL are those of the servers; Sentinels have theirs in the query, as
sentinel_username and sentinel_password. With rediss+ all of them are spoken to in TLS.
"""

import asyncio
import re
import time
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote

from redis.asyncio import (
    Connection,
    ConnectionPool,
    Redis,
    RedisCluster,
    Sentinel,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.exceptions import ConnectionError, RedisClusterException

from service.settings import StoreSettings
from service.store.embedded_redis import EmbeddedRedis

Client: TypeAlias = Redis | RedisCluster
Options: TypeAlias = dict[str, Any]
Hosts: TypeAlias = list[tuple[str, int]]

SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)
_LOOK_S = 0.5
_PORTS = {"sentinel": 26379, "cluster": 6379}


class Address(Protocol):
    def client(self, **options: Any) -> Client:
        """A client that has no connection yet. options: of each connection."""
        ...

    async def revive(self, client: Client) -> None:
        """Do what can be done for it to answer again. Raises EmbeddedRedisError or RedisError."""
        ...

    async def close(self, client: Client) -> None: ...


class Single:
    """A server that somebody else runs."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def client(self, **options: Any) -> Client:
        return Redis.from_pool(ConnectionPool(**{**self._options, **options}))

    async def revive(self, client: Client) -> None:
        pass

    async def close(self, client: Client) -> None:
        await client.aclose()


class Own(Single):
    """A server that runs as long as the service does, and is started again should it end."""

    def __init__(self, redis: EmbeddedRedis) -> None:
        path = str(redis.socket)
        super().__init__({"connection_class": UnixDomainSocketConnection, "path": path})
        self._redis = redis
        self._reviving = asyncio.Lock()

    async def revive(self, client: Client) -> None:
        async with self._reviving:
            await asyncio.to_thread(self._redis.start)

    async def close(self, client: Client) -> None:
        await super().close(client)
        await asyncio.to_thread(self._redis.stop)


class Sentinels:
    """The master of a name; who that is, is asked for each new connection."""

    def __init__(self, hosts: Hosts, name: str, options: Options) -> None:
        self._hosts = hosts
        self._name = name
        self._options = dict(options)
        self._asking = {key: value for key, value in options.items() if key.startswith("ssl")}
        for key in ("username", "password"):
            if given := self._options.pop(f"sentinel_{key}", None):
                self._asking[key] = given
        self._sentinel: Sentinel | None = None

    def client(self, **options: Any) -> Client:
        asking = {**self._asking, **options}
        self._sentinel = Sentinel(self._hosts, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
        client: Redis = self._sentinel.master_for(self._name, **{**self._options, **options})
        return client

    async def revive(self, client: Client) -> None:
        pass

    async def close(self, client: Client) -> None:
        await client.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()


class Cluster:
    """A Cluster; a part of it that is down is one that Redis is down for."""

    def __init__(self, hosts: Hosts, options: Options) -> None:
        self._hosts = hosts
        self._options = options
        self._next_look = 0.0

    def client(self, **options: Any) -> Client:
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in self._hosts],
            require_full_coverage=False,
            **{**self._options, **options},
        )

    async def revive(self, client: Client) -> None:
        """Ask which node has what: another may have taken the place of one that is gone.

        Not each time: it takes 4 ms of this process alone, and every connection is made anew.
        """
        assert isinstance(client, RedisCluster)
        if (now := time.monotonic()) < self._next_look:
            return
        self._next_look = now + _LOOK_S
        try:
            await client.nodes_manager.initialize()
        except RedisClusterException as error:
            raise ConnectionError("no node of the Cluster answers") from error

    async def close(self, client: Client) -> None:
        assert isinstance(client, RedisCluster)
        await client.aclose()  # which leaves connections open if the last call has failed
        await client.nodes_manager.aclose()
        await client.nodes_manager.aclose("startup_nodes")


def address_of(settings: StoreSettings) -> Address:
    """What the settings name. Raises EmbeddedRedisError for a folder it cannot be in."""
    if settings.redis_url is None:
        return Own(EmbeddedRedis(settings.embedded_redis_folder or settings.releases / "history"))
    password = settings.redis_password
    return address_at(
        settings.redis_url.get_secret_value(), password.get_secret_value() if password else None
    )


def address_at(url: str, password: str | None = None) -> Address:
    """Raises ValueError, whose message shows nothing of the URL: a password may be in it."""
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"the URL must start with one of {known}")
    plain, _, kind = scheme.partition("+")
    try:
        address = _several(plain, kind, url, password) if kind else _one(url, password)
    except (ValueError, TypeError):
        example = f"{scheme}://{_EXAMPLES.get(kind or plain, _EXAMPLES['redis'])}"
        raise ValueError(
            f"the URL is not like {example}, or has an option that is not known"
        ) from None
    return address


_EXAMPLES = {
    "redis": ":PASSWORD@HOST:6379/0",
    "unix": "/PATH",
    "sentinel": ":PASSWORD@HOST:26379,HOST:26379/NAME?db=0",
    "cluster": ":PASSWORD@HOST:6379,HOST:6379",
}


def _one(url: str, password: str | None) -> Address:
    options = _options(url, password)
    _check(options)
    return Single(options)


def _several(plain: str, kind: str, url: str, password: str | None) -> Address:
    place, path, query = _split(url)
    user, at, hosts = place.rpartition("@")
    nodes = [_options(f"{plain}://{user}{at}{host}{query}", password) for host in hosts.split(",")]
    places = [
        (node.pop("host"), node.pop("port", _PORTS[kind])) for node in nodes if "host" in node
    ]
    options = nodes[0]
    if len(places) != len(nodes):
        raise ValueError
    _check({key: value for key, value in options.items() if not key.startswith("sentinel_")})
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    if kind == "cluster":
        if path or options.pop("db", 0):
            raise ValueError
        return Cluster(places, options)
    if not path:
        raise ValueError
    return Sentinels(places, unquote(path), options)


def _split(url: str) -> tuple[str, str, str]:
    """Hosts, with user and password if there are any; path; query with its question mark."""
    match = re.fullmatch(r"[^:]+://([^/?]*)/?([^/?]*)(\?.*)?", url)
    if match is None:
        raise ValueError
    return match[1], match[2], match[3] or ""


def _options(url: str, password: str | None) -> Options:
    options: Options = {**parse_url(url)}
    return {**options, "password": password} if password else options


def _check(options: Options) -> None:
    """Raises TypeError for an option that no connection has, which else would be so much later."""
    rest = dict(options)
    rest.pop("connection_class", Connection)(**rest)
