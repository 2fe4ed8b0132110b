"""The URL of a Redis -> how to reach it: one server, Sentinels, a Cluster, or an embedded one.

redis://:PASSWORD@HOST:PORT/DB                  one server; rediss:// with TLS
unix:///PATH                                    one server on a Unix socket
redis+sentinel://HOST:PORT,HOST:PORT/NAME?db=0  the master that the Sentinels know by the name
redis+cluster://HOST:PORT,HOST:PORT             a Cluster, by some of its nodes

The user and password of a URL are for the servers. Those for the Sentinels are in the query, as
sentinel_username and sentinel_password. rediss+sentinel and rediss+cluster use TLS for all of them.
Options of a URL that say how replies are decoded, or when a call times out, are ignored.
"""

import asyncio
import re
import time
from pathlib import Path
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
from redis.asyncio.connection import parse_url as parse_redis_url
from redis.exceptions import ConnectionError, RedisClusterException

from service.store.embedded_redis import EmbeddedRedis

Client: TypeAlias = Redis | RedisCluster
Options: TypeAlias = dict[str, Any]
Hosts: TypeAlias = list[tuple[str, int]]

SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)
_DISCOVERY_INTERVAL_S = 0.5
_DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}
# Options of a URL that programs share and that this service decides itself: they are ignored.
_OWN_OPTIONS = (
    *("decode_responses", "encoding", "encoding_errors", "protocol", "parser_class"),
    *("max_connections", "socket_timeout", "socket_connect_timeout", "timeout"),
    *("retry", "retry_on_timeout", "retry_on_error", "redis_connect_func", "credential_provider"),
    *("single_connection_client", "legacy_responses", "socket_keepalive_options"),
)
_EXAMPLES = {
    "redis": ":PASSWORD@HOST:6379/0",
    "unix": "/PATH",
    "sentinel": ":PASSWORD@HOST:26379,HOST:26379/NAME?db=0",
    "cluster": ":PASSWORD@HOST:6379,HOST:6379",
}


class Deployment(Protocol):
    """One way in which a Redis is run, and how a client reaches it."""

    def client(self, **options: Any) -> Client:
        """A client that has not connected yet. options: of each connection."""
        ...

    async def recover(self, client: Client) -> None:
        """Do what can be done so that it answers again. Raises EmbeddedRedisError or RedisError."""
        ...

    async def close(self, client: Client) -> None: ...


class Standalone:
    """One server, which somebody else runs."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def client(self, **options: Any) -> Client:
        return Redis.from_pool(ConnectionPool(**{**self._options, **options}))

    async def recover(self, client: Client) -> None:
        pass

    async def close(self, client: Client) -> None:
        await client.aclose()


class Embedded(Standalone):
    """A server that runs as long as it has clients, and is restarted if it ends."""

    def __init__(self, redis: EmbeddedRedis) -> None:
        path = str(redis.socket)
        super().__init__({"connection_class": UnixDomainSocketConnection, "path": path})
        self._redis = redis
        self._clients = 0
        self._start_lock = asyncio.Lock()

    def client(self, **options: Any) -> Client:
        self._clients += 1
        return super().client(**options)

    async def recover(self, client: Client) -> None:
        async with self._start_lock:
            await asyncio.to_thread(self._redis.start)

    async def close(self, client: Client) -> None:
        await super().close(client)
        self._clients -= 1
        if self._clients == 0:
            await asyncio.to_thread(self._redis.stop)


class SentinelMaster:
    """The master of a name; each new connection asks the Sentinels which server that is."""

    def __init__(self, hosts: Hosts, name: str, options: Options) -> None:
        self._hosts = hosts
        self._name = name
        self._options = dict(options)
        self._sentinel_options = {
            key: value for key, value in options.items() if key.startswith("ssl")
        }
        for key in ("username", "password"):
            if value := self._options.pop(f"sentinel_{key}", None):
                self._sentinel_options[key] = value
        self._sentinel: Sentinel | None = None

    def client(self, **options: Any) -> Client:
        sentinel_options = {**self._sentinel_options, **options}
        self._sentinel = Sentinel(self._hosts, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
        client: Redis = self._sentinel.master_for(self._name, **{**self._options, **options})
        return client

    async def recover(self, client: Client) -> None:
        pass

    async def close(self, client: Client) -> None:
        await client.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()


class Cluster:
    """A Cluster. If one of its nodes is down, calls of the keys there fail."""

    def __init__(self, hosts: Hosts, options: Options) -> None:
        self._hosts = hosts
        self._options = options
        self._next_discovery = 0.0

    def client(self, **options: Any) -> Client:
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in self._hosts],
            require_full_coverage=False,
            **{**self._options, **options},
        )

    async def recover(self, client: Client) -> None:
        """Discover which node has which slots: a replica may have replaced its master.

        Not each time: discovery blocks this process for 4 ms, and opens every connection anew.
        """
        assert isinstance(client, RedisCluster)
        if (now := time.monotonic()) < self._next_discovery:
            return
        self._next_discovery = now + _DISCOVERY_INTERVAL_S
        try:
            await client.initialize()  # once; it learns which arguments of a command are keys
            await client.nodes_manager.initialize()
        except RedisClusterException as error:
            raise ConnectionError("no node of the Cluster answers") from error

    async def close(self, client: Client) -> None:
        assert isinstance(client, RedisCluster)
        await client.aclose()  # which leaves connections open if the last call has failed
        await client.nodes_manager.aclose()
        await client.nodes_manager.aclose("startup_nodes")


def redis_at(url: str | None, password: str | None, embedded_folder: Path) -> Deployment:
    """The Redis of the URL; without one, an embedded Redis with its data in the folder.

    Raises ValueError for the URL, EmbeddedRedisError for the folder.
    """
    return Embedded(EmbeddedRedis(embedded_folder)) if url is None else parse_url(url, password)


def parse_url(url: str, password: str | None = None) -> Deployment:
    """Raises ValueError. Its message shows nothing of the URL, which may hold a password."""
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"the URL must start with one of {known}")
    base_scheme, _, kind = scheme.partition("+")
    try:
        return _multiple(base_scheme, kind, url, password) if kind else _single(url, password)
    except (ValueError, TypeError):
        example = f"{scheme}://{_EXAMPLES.get(kind or base_scheme, _EXAMPLES['redis'])}"
        raise ValueError(
            f"the URL is not like {example}, or has an option that is not known"
        ) from None


def _single(url: str, password: str | None) -> Deployment:
    options = _options(url, password)
    _check(options)
    return Standalone(options)


def _multiple(scheme: str, kind: str, url: str, password: str | None) -> Deployment:
    authority, path, query = _split(url)
    credentials, at, hosts = authority.rpartition("@")
    nodes = [
        _options(f"{scheme}://{credentials}{at}{host}{query}", password)
        for host in hosts.split(",")
    ]
    addresses = [
        (node.pop("host"), node.pop("port", _DEFAULT_PORTS[kind]))
        for node in nodes
        if "host" in node
    ]
    options = nodes[0]
    if len(addresses) != len(nodes):
        raise ValueError
    _check({key: value for key, value in options.items() if not key.startswith("sentinel_")})
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    if kind == "cluster":
        if path or options.pop("db", 0):
            raise ValueError
        return Cluster(addresses, options)
    if not path:
        raise ValueError
    return SentinelMaster(addresses, unquote(path), options)


def _split(url: str) -> tuple[str, str, str]:
    """Hosts, with user and password if there are any; path; query with its question mark."""
    match = re.fullmatch(r"[^:]+://([^/?]*)/?([^/?]*)(\?.*)?", url)
    if match is None:
        raise ValueError
    return match[1], match[2], match[3] or ""


def _options(url: str, password: str | None) -> Options:
    options: Options = {**parse_redis_url(url)}
    for name in _OWN_OPTIONS:
        options.pop(name, None)
    return {**options, "password": password} if password else options


def _check(options: Options) -> None:
    """Raises TypeError for an option that no connection has; redis would raise it much later."""
    arguments = dict(options)
    arguments.pop("connection_class", Connection)(**arguments)
