"""Direct answers: as the framework's, to the header, and only for what is plain."""

import gzip
import re
import time
from collections.abc import Callable, Iterator

import pytest
from starlette.types import Receive, Scope, Send

from service.auth.api_keys import key_line, new_key
from service.http.middleware import RequestMiddleware
from service.serving.batching import Engine
from service.serving.server import DrainingServer
from service.settings import Settings
from tests.service.raw_http import Connection, post
from tests.service.threaded import served_in_a_thread

JSON = "content-type: application/json"
LIVE = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
VARYING = {"date", "x-request-id", "server-timing"}
VALID = b'{"sequence":["item-1","item-2"],"k":3}'

Response = tuple[int, dict[str, str], bytes]


def connect(server: DrainingServer) -> Connection:
    """A connection to a server that is ready."""
    connection = Connection(server.servers[0].sockets[0].getsockname()[1])
    while ask(connection, b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")[0] != 200:
        time.sleep(0.05)
    return connection


@pytest.fixture
def server(
    settings: Callable[..., Settings], publish: Callable[..., object]
) -> Iterator[DrainingServer]:
    publish()
    with served_in_a_thread(settings(port=0)) as server:
        yield server


@pytest.fixture
def client(server: DrainingServer) -> Iterator[Connection]:
    client = connect(server)
    yield client
    client.close()


@pytest.fixture
def framework(settings: Callable[..., Settings], server: object) -> Iterator[Connection]:
    """A server of the same release, whose access log needs the middleware."""
    with served_in_a_thread(settings(port=0, access_log=True)) as logging_server:
        client = connect(logging_server)
        yield client
        client.close()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that the framework was given."""
    paths: list[str] = []
    handle = RequestMiddleware.__call__

    async def noting(self: RequestMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        paths.extend([scope["path"]] * (scope["type"] == "http"))
        await handle(self, scope, receive, send)

    monkeypatch.setattr(RequestMiddleware, "__call__", noting)
    return paths


def ask(client: Connection, request: bytes) -> Response:
    client.send(request)
    return client.read_response()


REQUESTS = [
    post(body=VALID),
    post("/recommend", JSON, "x-request-id: mine", body=VALID),
    post("/recommend", "x-deadline-ms: 200", body=VALID),
    post("/recommend", "x-deadline-ms: soon", body=VALID),
    post("/recommend", JSON + "; charset=utf-8", body=VALID),
    post("/recommend", "content-type: text/plain", body=VALID),
    post("/recommend", "origin: https://evil.example", JSON, body=VALID),
    post("/recommend", "content-encoding: gzip", JSON, body=gzip.compress(VALID, mtime=0)),
    post("/recommend?x=1", body=VALID),
    post("/recommend", body=VALID).replace(b"localhost", b"evil.example"),
    post(body=b'{"user_id":"anna"}'),
    post(body=b'{"user_id":7,"sequence":["item-3"],"explain":true}'),
    post(body=b'{"sequence":["nothing"],"diversity":0.5}'),
    post(body=b'{"sequence":["item-1"],"categories":{"deny":["none"]},"exclude":["item-2"]}'),
    post(body=b'{"sequence":["item-1"],"k":0}'),
    post(body=b'{"sequence":["item-1"],"unknown":1}'),
    post(body=b'{"sequence":"item-1"}'),
    post(body=b"{}"),
    post(body=b"{"),
    post(body=b"\xff"),
    post(body=b""),
]


def without_impression(body: bytes) -> bytes:
    """The body but for the id, which each answer has of its own."""
    return re.sub(rb'"impression_id":"[A-Za-z0-9_-]{22}"', b"", body)


def test_the_responses_are_those_of_the_framework(
    client: Connection, framework: Connection
) -> None:
    for request in REQUESTS:
        status, headers, body = ask(client, request)
        expected_status, expected_headers, expected_body = ask(framework, request)

        assert status == expected_status, request
        assert without_impression(body) == without_impression(expected_body), request
        assert headers.keys() == expected_headers.keys(), request
        for name in headers.keys() - VARYING:
            assert headers[name] == expected_headers[name], request
        if b"x-request-id" in request:
            assert headers["x-request-id"] == "mine"
        assert ask(client, LIVE)[0] == 200, "the connection goes on"


def test_only_what_is_plain_is_answered_past_the_framework(
    client: Connection, seen: list[str]
) -> None:
    for request in (post(body=VALID), post(body=b'{"user_id":"anna"}')):
        assert ask(client, request)[0] == 200
    assert seen == []

    invalid, whole = post(body=b'{"k":0}'), post(body=VALID)
    assert ask(client, invalid)[0] == 422
    client.send(whole[:-5])
    assert ask(client, whole[-5:])[0] == 200
    assert seen == ["/recommend"] * 2


def test_requests_sent_together_are_answered_in_order(client: Connection) -> None:
    client.send(post(body=VALID) + LIVE + post(body=b"{}") + post(body=VALID))
    assert [client.read_response()[0] for _ in range(4)] == [200, 200, 422, 200]


def test_answers_are_counted_and_measured(client: Connection) -> None:
    for request in (post(body=VALID), post("/recommend", "x-deadline-ms: 0", body=VALID)):
        client.send(request)
        client.read_response()
    metrics = ask(client, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")[2].decode()

    assert 're4_requests_total{route="/recommend",status="200"} 1.0' in metrics
    assert 're4_requests_total{route="/recommend",status="422"} 1.0' in metrics
    assert 're4_request_seconds_count{stage="total"} 1.0' in metrics


def test_a_key_is_asked_for(
    settings: Callable[..., Settings],
    publish: Callable[..., object],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    publish()
    reader, writer = new_key(), new_key()
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"{key_line(reader, ['read'])}\n{key_line(writer, ['events'])}\n")
    with served_in_a_thread(settings(port=0, keys_file=file)) as server:
        client = connect(server)
        assert ask(client, post(body=VALID))[0] == 401
        for key, status in ((reader, 200), (writer, 403)):
            request = post("/recommend", f"authorization: Bearer {key}", body=VALID)
            assert ask(client, request)[0] == status
        client.close()


def test_a_bug_is_an_internal_error_and_logged(
    client: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Engine, "admit", fail)
    status, headers, body = ask(client, post(body=VALID))
    assert status == 500
    assert b'"code":"internal"' in body
    [record] = [each for each in caplog.records if each.message == "request failed"]
    assert record.request_id == headers["x-request-id"]  # type: ignore[attr-defined]


def test_a_draining_server_closes_the_connection(
    server: DrainingServer, client: Connection
) -> None:
    server._service.draining = True
    server.config.encoded_headers.append((b"connection", b"close"))
    server.server_state.default_headers.append((b"connection", b"close"))
    status, headers, _ = ask(client, post(body=VALID))
    assert (status, headers["connection"]) == (200, "close")
    assert client.is_closed()


def test_a_client_that_is_gone_is_counted(
    server: DrainingServer, client: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = server.config.app.state.service.engine  # type: ignore[union-attr]
    run = engine._run
    monkeypatch.setattr(engine, "_run", lambda _: server.config.loop)  # it does not begin
    gone = connect(server)
    gone.send(post(body=VALID))
    while not engine.depth:
        pass
    gone.close()
    monkeypatch.undo()
    server._loop.call_soon_threadsafe(run, 5)  # type: ignore[union-attr]
    while True:
        metrics = ask(client, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")[2].decode()
        if 're4_requests_total{route="/recommend",status="499"} 1.0' in metrics:
            break
