"""An error of Redis -> its reason, for people. No text holds a host, a user or a password."""

import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    InvalidResponse,
    MasterDownError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TimeoutError,
)

from service.store.embedded_redis import EmbeddedRedisError
from service.store.ownership import ForeignDataError


class Reason(NamedTuple):
    """code: for programs. text: what is wrong, and what to do."""

    code: str
    text: str


_CERTIFICATE = Reason(
    "certificate",
    "the server's certificate is not valid for it or not trusted; check ssl_ca_certs in the URL",
)
_TLS = Reason("tls", "no TLS is spoken at that port; redis:// instead of rediss://?")
_REFUSED = Reason("refused", "nothing listens at that port; check the port, and that Redis runs")
_REJECTED = Reason("rejected", "Redis rejects the command; its log may say why")
_UNREACHABLE = Reason(
    "connection", "the connection cannot be made or was closed; is it a Redis, with or without TLS?"
)

# The first word of a reply, for errors for which the client has no class, or another in a script.
_BY_REPLY = {
    "OOM": Reason("full", "Redis is full; raise maxmemory, or export events"),
    "READONLY": Reason("read_only", "Redis is a read-only replica; give the URL of its master"),
    "NOPERM": Reason("permission", "the user's ACL forbids a command or a key; allow it"),
    "WRONGPASS": Reason("authentication", "Redis does not accept the user or the password"),
    "NOAUTH": Reason("authentication", "Redis wants a password, and none was given"),
    "LOADING": Reason("loading", "Redis is loading its data; wait"),
    "MASTERDOWN": Reason("master_down", "Redis is a replica without its master"),
    "CLUSTERDOWN": Reason("cluster_down", "a part of the Cluster has no master"),
    "MISCONF": Reason("disk", "Redis cannot write to its disk; see its log"),
    "NOREPLICAS": Reason("replicas", "Redis has fewer replicas than it needs for writing"),
    "WRONGTYPE": Reason("type", "a key holds another type of data; another program wrote it"),
}
_IN_SCRIPTS = ("OOM", "READONLY", "NOPERM", "MISCONF")
_BY_CLASS: tuple[tuple[type[BaseException], Reason], ...] = (
    (ForeignDataError, Reason("foreign_data", "Redis holds the data of another root; see the log")),
    (EmbeddedRedisError, Reason("embedded", "the embedded Redis cannot be started; see the log")),
    (ssl.SSLCertVerificationError, _CERTIFICATE),
    (ssl.SSLError, _TLS),
    (socket.gaierror, Reason("host", "no host of that name is known; check the host")),
    (ConnectionRefusedError, _REFUSED),
    (OutOfMemoryError, _BY_REPLY["OOM"]),
    (ReadOnlyError, _BY_REPLY["READONLY"]),
    (NoPermissionError, _BY_REPLY["NOPERM"]),
    (AuthenticationError, _BY_REPLY["WRONGPASS"]),
    (BusyLoadingError, _BY_REPLY["LOADING"]),
    (MasterDownError, _BY_REPLY["MASTERDOWN"]),
    (ClusterDownError, _BY_REPLY["CLUSTERDOWN"]),
    (MasterNotFoundError, Reason("sentinel", "no Sentinel answers and knows a master of the name")),
    (MaxConnectionsError, Reason("connections", "all connections are in use")),
    (InvalidResponse, Reason("protocol", "what answers there is not a Redis; check the port")),
    (RedisClusterException, Reason("cluster", "no node of the Cluster answers; check the hosts")),
)
# In the text of a connection's error, which has lost its class.
_BY_TEXT = (
    ("Authentication required", _BY_REPLY["NOAUTH"]),
    ("CERTIFICATE_VERIFY_FAILED", _CERTIFICATE),
    ("WRONG_VERSION_NUMBER", _TLS),
    ("Connection refused", _REFUSED),
    ("Connect call failed", _REFUSED),
    ("max number of clients", Reason("clients", "Redis has all the clients that it allows")),
    ("Protocol Error", Reason("protocol", "what answers there is not a Redis; check the port")),
    ("DB index is out of range", Reason("database", "Redis has no database of that number")),
    ("Invalid Database", Reason("database", "Redis has no database of that number")),
)
_TIMEOUT = Reason(
    "timeout", "no answer in time; check host, port and TLS, or raise --redis-timeout-ms"
)


def reason_of(error: BaseException) -> Reason:
    """The reason of an error that a call of Redis has raised."""
    for link in _chain(error):
        if (reply := _BY_REPLY.get(_reply_code(link))) is not None:
            return reply
        for part, reason in _BY_TEXT:
            if part in str(link):
                return reason
        for cls, reason in _BY_CLASS:
            if isinstance(link, cls):
                return reason
    if isinstance(error, TimeoutError | OSError) and not isinstance(error, ConnectionError):
        return _TIMEOUT
    return _REJECTED if isinstance(error, ResponseError) else _UNREACHABLE


def error_name(error: Exception) -> str:
    """The client's class for the error, also for an out-of-memory error raised in a script."""
    if isinstance(error, ResponseError) and reason_of(error).code == "full":
        return OutOfMemoryError.__name__
    return type(error).__name__


def _reply_code(error: BaseException) -> str:
    """The code of the server's reply; in a script's error it may follow a prefix."""
    if not isinstance(error, ResponseError | ConnectionError):
        return ""
    words = str(error).replace("-", " ").split()
    return next((word for word in words if word in _IN_SCRIPTS), words[0] if words else "")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it was raised from or during."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
