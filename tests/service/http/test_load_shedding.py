"""Load shedding over a real socket: complete responses, and only for requests it may reject."""

import time
from collections.abc import Callable, Iterator

import pytest

from service.http.schemas.common import ErrorBody
from service.serving.batching import Engine
from service.serving.server import DrainingServer
from service.settings import Settings
from tests.service.raw_http import Connection, post
from tests.service.threaded import served_in_a_thread


@pytest.fixture
def full_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's queue is full."""
    monkeypatch.setattr(Engine, "is_full", lambda self, depth: True)


@pytest.fixture
def server(settings: Callable[..., Settings], full_engine: None) -> Iterator[DrainingServer]:
    with served_in_a_thread(settings(port=0)) as server:
        yield server


@pytest.fixture
def client(server: DrainingServer) -> Iterator[Connection]:
    client = Connection(server.servers[0].sockets[0].getsockname()[1])
    yield client
    client.close()


def was_shed(response: tuple[int, dict[str, str], bytes]) -> bool:
    """Responses of the framework have a request id; those of load shedding have none."""
    return "x-request-id" not in response[1]


def test_the_response_is_the_one_that_the_framework_would_send(client: Connection) -> None:
    client.send(post())
    status, headers, body = client.read_response()

    assert was_shed((status, headers, body))
    assert status == 503
    assert headers["retry-after"] == "1"
    assert headers["content-type"] == "application/json"
    error = ErrorBody.model_validate_json(body, strict=True, extra="forbid").error
    assert error.code == "overloaded"


def test_each_request_has_its_own_response_however_it_is_split(client: Connection) -> None:
    for _ in range(3):
        client.send(post())
        assert client.read_response()[0] == 503
    client.send(post() + post() + b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert [client.read_response()[0] for _ in range(3)] == [503, 503, 200]
    whole = post(body=b'{"sequence":["' + post() + b'"]}')
    for start in range(0, len(whole), 7):  # a body that looks like a request is not one
        client.send(whole[start : start + 7])
    assert client.read_response()[0] == 503
    client.send(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert client.read_response()[2] == b'{"status":"alive"}', "no bytes are left over"


def test_a_cached_head_is_handled_as_the_parser_did(client: Connection) -> None:
    live = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
    empty = post(body=b"")
    for request in (post(), empty):
        client.send(request)  # caches its head
        assert client.read_response()[0] == 503
        client.send(request + live)
        assert [client.read_response()[0] for _ in range(2)] == [503, 200]
        client.send(request[:-1])
        client.send(request[-1:] + live)
        assert [client.read_response()[0] for _ in range(2)] == [503, 200]
        client.send(request)
        assert was_shed(client.read_response())
    for split in range(1, len(empty)):
        client.send(empty[:split])
        client.send(empty[split:])
        assert client.read_response()[0] == 503
    client.send(b"\r\n\r\n" + live)
    assert client.read_response()[0] == 200, "no response to empty lines"


def test_pages_of_allowed_origins_may_read_rejections(
    settings: Callable[..., Settings], full_engine: None
) -> None:
    shop, evil = "https://shop.example", "https://evil.example"
    with (
        served_in_a_thread(settings(port=0, cors_origins=shop)) as server,
        served_in_a_thread(settings(port=0, cors_origins="*")) as for_all,
        served_in_a_thread(settings(port=0)) as for_none,
    ):
        expected = [(server, shop, shop), (server, evil, None), (server, None, None),
                    (for_all, evil, "*"), (for_all, None, None),
                    (for_none, shop, None)]  # fmt: skip
        for asked, origin, allowed in expected:
            client = Connection(asked.servers[0].sockets[0].getsockname()[1])
            for _ in range(2):  # parsed, then recognized
                client.send(post("/recommend", *([f"origin: {origin}"] if origin else [])))
                response = client.read_response()
                assert was_shed(response)
                assert response[1].get("access-control-allow-origin") == allowed
                assert ("access-control-expose-headers" in response[1]) == (allowed is not None)
            client.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        post("/events"),
        post("/recommend?x=1"),
        post("/recommend", "connection: close"),
        post("/recommend", "expect: 100-continue"),
        post().replace(b"HTTP/1.1", b"HTTP/1.0"),
        post().replace(b"POST", b"PUT"),
    ],
)
def test_requests_that_are_not_plain_go_through_the_framework(
    client: Connection, request_bytes: bytes
) -> None:
    client.send(request_bytes)
    assert not was_shed(client.read_response())


def test_shed_requests_are_counted(client: Connection) -> None:
    for _ in range(4):
        client.send(post())
        client.read_response()
    client.send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
    metrics = client.read_response()[2].decode()

    assert 're4_requests_total{route="/recommend",status="503"} 4.0' in metrics
    assert 're4_rejected_requests_total{reason="shed"} 4.0' in metrics


def test_a_draining_server_sheds_no_requests(server: DrainingServer, client: Connection) -> None:
    server._service.draining = True
    client.send(post())
    assert not was_shed(client.read_response())


def test_a_connection_is_kept_alive_only_while_it_is_used(server: DrainingServer) -> None:
    server.config.timeout_keep_alive = 1
    connection = Connection(server.servers[0].sockets[0].getsockname()[1])
    start = time.monotonic()
    while time.monotonic() < start + 2.5:
        connection.send(post())
        assert connection.read_response()[0] == 503
        time.sleep(0.05)
    last = time.monotonic()
    assert connection.is_closed()
    assert 0.9 < time.monotonic() - last < 10, "not before the time-out"
    connection.close()


def test_no_request_is_shed_with_an_access_log(
    settings: Callable[..., Settings], full_engine: None
) -> None:
    with served_in_a_thread(settings(port=0, access_log=True)) as server:
        client = Connection(server.servers[0].sockets[0].getsockname()[1])
        client.send(post())
        assert not was_shed(client.read_response())
        client.close()


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: "])
def test_an_endless_head_is_cut_off(client: Connection, start: bytes) -> None:
    client.send(post())
    assert client.read_response()[0] == 503
    client.send(start + b"a" * 40_000)
    client.send(b"a" * 40_000)
    status, headers, body = client.read_response()
    assert status == 431
    assert headers["connection"] == "close"
    error = ErrorBody.model_validate_json(body, strict=True, extra="forbid").error
    assert error.code == "headers_too_large"
    assert client.is_closed()


def test_long_bodies_and_many_requests_are_not_a_long_head(client: Connection) -> None:
    for _ in range(3):
        client.send(post(body=b" " * 200_000))
        assert client.read_response()[0] == 503
        client.send(post("/events", body=b" " * 200_000))
        assert client.read_response()[0] == 422
