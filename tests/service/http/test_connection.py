"""One connection: upgrades that are offered, slow and broken requests, and closing."""

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from service.http import connection, lingering
from service.http.schemas.common import ErrorBody
from service.serving.server import DrainingServer
from service.settings import Settings
from tests.service.raw_http import Connection, post
from tests.service.threaded import served_in_a_thread

ORIGIN = "https://shop.example"
JSON = "content-type: application/json"
LIVE = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
EVENT = b'{"user_id":"anna","item_id":"item-1"}'
# What Java's HttpClient sends to offer HTTP/2.
JAVA = (
    "connection: Upgrade, HTTP2-Settings",
    "http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    "upgrade: h2c",
    "user-agent: Java-http-client/17",
)


@pytest.fixture
def server(
    settings: Callable[..., Settings], publish: Callable[..., object]
) -> Iterator[DrainingServer]:
    publish()
    with served_in_a_thread(settings(port=0, cors_origins=ORIGIN)) as server:
        yield server


@pytest.fixture
def port(server: DrainingServer) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


@pytest.fixture
def client(port: int) -> Iterator[Connection]:
    client = Connection(port)
    yield client
    client.close()


def code_of(body: bytes) -> str:
    return ErrorBody.model_validate_json(body, strict=True, extra="forbid").error.code


@pytest.mark.parametrize("headers", [JAVA, ("connection: Upgrade", "upgrade: websocket")])
def test_the_offer_of_another_protocol_is_ignored(
    client: Connection, headers: tuple[str, ...]
) -> None:
    request = post("/events", *headers, body=EVENT)
    for part in ([request], [request[:-9], request[-9:]], [bytes([byte]) for byte in request]):
        for data in part:
            client.send(data)
        status, _, body = client.read_response()
        assert (status, body[:13]) == (200, b'{"accepted":1'), body
    chunked = request.replace(b"content-length: 37", b"transfer-encoding: chunked")
    chunked = chunked.replace(EVENT, b"25\r\n" + EVENT + b"\r\n0\r\n\r\n")
    client.send(chunked + LIVE.replace(b"\r\n\r\n", "\r\n".join(("", *headers, "", "")).encode()))
    client.send(LIVE)
    assert [client.read_response()[0] for _ in range(3)] == [200, 200, 200]


def test_many_upgrades_in_one_packet_are_read_one_by_one(client: Connection) -> None:
    offer = LIVE.replace(b"\r\n\r\n", b"\r\nconnection: upgrade, close\r\nupgrade: h2c\r\n\r\n")
    client.send(offer.replace(b", close", b"") * 2000 + offer)
    for _ in range(2000):
        assert client.read_response()[0] == 200
    assert client.read_response()[1]["connection"] == "close"
    assert client.is_closed()


def test_a_tunnel_is_refused_and_closed(client: Connection) -> None:
    client.send(b"CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert client.read_response()[0] >= 400
    assert client.is_closed()


def test_a_client_that_sends_a_long_body_reads_why_it_is_refused(port: int) -> None:
    for path in ("/recommend", "/recommend/batch", "/events"):
        for chunked in (False, True):
            client = Connection(port)
            request = post(path, f"origin: {ORIGIN}", JSON, body=b" " * 5_000_000)
            if chunked:
                request = request.replace(b"content-length: 5000000", b"transfer-encoding: chunked")
                request = request.replace(b"\r\n\r\n", b"\r\n\r\n4c4b40\r\n", 1) + b"\r\n0\r\n\r\n"
            client.send(request)  # all of it, before it looks at the response
            status, headers, body = client.read_response()
            assert (status, code_of(body)) == (413, "body_too_large")
            assert headers["connection"] == "close"
            assert headers["access-control-allow-origin"] == ORIGIN
            assert client.is_closed()
            client.close()


def test_a_client_that_asks_first_need_not_send_a_long_body(client: Connection) -> None:
    head = post("/events", "expect: 100-continue", body=b" " * 5_000_000)[:-5_000_000]
    client.send(head)
    assert client._file.readline().startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"GET /" + b"a" * 3_000_000, 431, "headers_too_large"),
        (b"\x00\xff" * 1_000_000, 400, "malformed_request"),
        (post("/events")[:30] + b"\x00" * 1_000_000, 400, "malformed_request"),
    ],
)
def test_a_client_that_goes_on_sending_reads_why_it_is_refused(
    client: Connection, data: bytes, status: int, code: str
) -> None:
    client.send(data)
    response = client.read_response()
    assert (response[0], code_of(response[2])) == (status, code)
    assert response[1]["connection"] == "close"
    assert client.is_closed()


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> float:
    """The time limits for a head and for what nobody reads, in seconds."""
    monkeypatch.setattr(connection, "_ARRIVAL_TIMEOUT_S", 0.4)
    monkeypatch.setattr(lingering, "_LINGER_S", 0.4)
    return 0.4


@pytest.mark.parametrize(
    "head", [b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ", b"POST /recommend HTTP/1.1\r\nx: "]
)
def test_a_head_that_drips_is_cut_off(brief: float, client: Connection, head: bytes) -> None:
    client.send(LIVE + head)
    assert client.read_response()[0] == 200
    start = time.monotonic()
    drip(client, b"a")
    status, headers, body = client.read_response()

    assert (status, code_of(body)) == (408, "head_too_slow")
    assert headers["connection"] == "close"
    assert time.monotonic() - start < 20 * brief
    assert client.is_closed()


@pytest.mark.parametrize("first", [b"", LIVE])
def test_empty_lines_hold_no_connection(brief: float, client: Connection, first: bytes) -> None:
    client.send(first)
    if first:
        assert client.read_response()[0] == 200
    drip(client, b"\r\n")
    assert client.read_response()[0] == 408
    assert client.is_closed()


def test_a_body_that_nobody_reads_holds_no_connection(brief: float, client: Connection) -> None:
    client.send(b"GET /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n")
    assert client.read_response()[0] == 200
    drip(client, b" ")
    assert client.is_closed()


def test_a_client_that_never_ends_its_refused_body_is_cut_off(brief: float, port: int) -> None:
    client = Connection(port)
    client.send(post("/events", body=b" " * 9_000_000)[:4_500_000])
    assert client.read_response()[0] == 413
    drip(client, b" ")
    client.close()


def test_a_connection_that_is_never_used_ends(server: DrainingServer, port: int) -> None:
    server.config.timeout_keep_alive = 1
    client = Connection(port)
    assert client.is_closed()
    client.close()


def drip(client: Connection, data: bytes) -> None:
    """Send the data again and again, until the server has had enough."""
    client._socket.settimeout(0.02)
    for _ in range(500):
        try:
            client._socket.sendall(data)
            if client._socket.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            continue
        except OSError:
            break
    else:
        pytest.fail("the connection is held")
    client._socket.settimeout(30)
