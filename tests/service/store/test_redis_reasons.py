"""What is wrong with Redis is said: in the log and in /readyz, without secrets."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from zlib import crc32

import httpx
import pytest

from tests.evidence.redis_servers import RedisServer, free_port

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
SECRET = "hunter2"


async def ready(client: httpx.AsyncClient) -> dict[str, Any]:
    content: dict[str, Any] = (await client.get("/readyz")).json()
    return content


async def check(
    serve: Serve, url: str, code: str, caplog: pytest.LogCaptureFixture, or_else: str = ""
) -> dict[str, Any]:
    """That /readyz and the log say the reason, and nothing that is in the URL."""
    async with serve(redis_url=url, redis_timeout_ms=2000) as client:
        content = await ready(client)
        text = json.dumps(content) + (await client.get("/metrics")).text
    assert content["history"] == "degraded"
    codes = {reason.partition(":")[0] for reason in content["failing"].values()}
    assert code in codes <= {code, or_else}, content
    logged = " ".join(str(vars(record)) for record in caplog.records)
    assert code in {getattr(record, "reason", None) for record in caplog.records}
    assert SECRET not in text + logged
    return content


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    files = ("-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=elsewhere.example")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def web_port() -> Iterator[int]:
    """Of a server that is no Redis."""
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


async def test_a_wrong_port(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    await check(serve, f"redis://:{SECRET}@127.0.0.1:{free_port()}", "refused", caplog)


async def test_a_wrong_host(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    await check(serve, f"redis://:{SECRET}@no-such-host.invalid:6379", "host", caplog)


async def test_a_port_of_another_program(
    serve: Serve, web_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    # It answers one line and closes: another command's write may find the connection closed.
    url = f"redis://:{SECRET}@127.0.0.1:{web_port}"
    await check(serve, url, "protocol", caplog, or_else="connection")


async def test_a_password_that_is_wrong_or_missing(
    serve: Serve, tcp: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    tcp.execute("ACL", "SETUSER", "shop", "on", ">right", "~*", "+@all")
    await check(serve, f"redis://shop:{SECRET}@127.0.0.1:{tcp.port}", "authentication", caplog)
    tcp.execute("CONFIG", "SET", "requirepass", "right")
    await check(serve, tcp.url, "authentication", caplog)


async def test_an_acl_that_forbids_writing(
    serve: Serve, tcp: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    tcp.execute("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~re4:*", "+@all", "-@write")
    url = f"redis://reader:{SECRET}@127.0.0.1:{tcp.port}"
    content = await check(serve, url, "permission", caplog)
    assert set(content["failing"]) == {"write"}


async def test_a_read_only_replica(
    serve: Serve, tcp: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    tcp.execute("RPUSH", f"re4:{{{crc32(b'anna') % 64}}}:history:anna", "item-3")
    tcp.execute("REPLICAOF", "127.0.0.1", free_port())
    content = await check(serve, tcp.url, "read_only", caplog)
    assert set(content["failing"]) == {"write"}
    async with serve(redis_url=tcp.url) as client:
        history = (await client.get("/users/anna/history")).json()
        assert history["items"] == ["item-3"], "reading goes on"
        event = {"user_id": "anna", "item_id": "item-1"}
        assert (await client.post("/events", json=event)).status_code == 503
        assert "read_only" in (await ready(client))["failing"]["append"]


async def test_a_full_redis(
    serve: Serve, tcp: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    tcp.execute("CONFIG", "SET", "maxmemory", 1)
    content = await check(serve, tcp.url, "full", caplog)
    assert set(content["failing"]) == {"write"}


async def test_a_certificate_that_is_not_trusted(
    serve: Serve, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    url = f"rediss://:{SECRET}@127.0.0.1:{port}"
    await check(serve, url, "certificate", caplog)
    trusted = f"{url}?ssl_ca_certs={certificates / 'cert.pem'}"  # and of another host
    await check(serve, trusted, "certificate", caplog)
    server.close()


async def test_tls_where_none_is_spoken(serve: Serve, tcp: RedisServer, web_port: int) -> None:
    for port, expected in ((tcp.port, "timeout"), (web_port, "tls")):
        url = f"rediss://127.0.0.1:{port}"
        async with serve(redis_url=url, redis_timeout_ms=2000) as client:
            [reason] = set((await ready(client))["failing"].values())
        assert reason.startswith(expected)
        assert "TLS" in reason


@pytest.mark.parametrize(
    "query",
    [
        *("decode_responses=true", "encoding=utf-16", "encoding_errors=ignore", "protocol=3"),
        *("retry_on_timeout=true", "socket_timeout=0.0001", "max_connections=1"),
        "redis_connect_func=x&credential_provider=y&parser_class=z",
    ],
)
async def test_options_of_a_url_that_other_programs_need_are_no_errors(
    serve: Serve, tcp: RedisServer, query: str
) -> None:
    async with serve(redis_url=f"{tcp.url}/0?{query}") as client:
        event = {"user_id": "anna", "item_id": "item-3", "event_id": "1"}
        assert (await client.post("/events", json=event)).json()["accepted"] == 1
        assert (await client.post("/events", json=event)).json()["duplicates"] == 1
        assert (await client.get("/users/anna/history")).json()["items"] == ["item-3"]
        assert (await client.put("/items/item-5", json={"available": False})).status_code == 200
        answer = await client.post("/recommend", json={"user_id": "anna"})
        assert answer.status_code == 200
        assert not answer.json()["degraded"]
        assert "item-5" not in {item["item_id"] for item in answer.json()["items"]}
        assert (await client.delete("/users/anna/history")).json() == {"forgotten": 1}
        assert (await ready(client))["history"] == "ok"


@pytest.mark.parametrize(
    ("policy", "evicts"), [("noeviction", False), ("allkeys-lru", True), ("volatile-ttl", True)]
)
async def test_a_policy_that_drops_keys_is_warned_of(
    serve: Serve, tcp: RedisServer, policy: str, evicts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tcp.execute("CONFIG", "SET", "maxmemory-policy", policy)
    async with serve(redis_url=tcp.url) as client:
        metrics = (await client.get("/metrics")).text
    assert ("REDIS EVICTS" in caplog.text) is evicts
    assert f"re4_redis_evicts {float(evicts)}" in metrics


async def test_a_user_is_forgotten_and_events_are_refused_in_a_full_redis(
    serve: Serve, tcp: RedisServer
) -> None:
    event = {"user_id": "anna", "item_id": "item-3"}
    async with serve(redis_url=tcp.url) as client:
        assert (await client.post("/events", json=event)).status_code == 200
        tcp.execute("CONFIG", "SET", "maxmemory", 1)
        assert (await client.post("/events", json=event)).status_code == 503
        assert (await client.delete("/users/anna/history")).json() == {"forgotten": 1}
        assert (await client.get("/users/anna/history")).json()["items"] == []
