"""The client against a real server: every call, synchronous and asynchronous, and every error."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.client import (
    AsyncClient,
    CallError,
    Client,
    ConflictError,
    Event,
    ForbiddenError,
    FrequencyCap,
    InvalidRequestError,
    ItemChange,
    NamedItemChange,
    NotFoundError,
    RateLimitedError,
    RecommendRequest,
    SeenFilter,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
    connection,
)
from service.http.schemas.common import ErrorBody
from service.http.schemas.recommend import Categories, Recommendations
from tests.service.conftest import server_process
from tests.service.shops import SHOPS, write_shops

KEY = "sesam-open-up"
README = (Path(__file__).parents[3] / "service" / "README.md").read_text(encoding="utf-8")
STRANGE_IDS = ["a/b", "..", ".", "a b+c%2F", "é?#&=;:@", "/", "//x/history", "日本", "\x00\t"]


@pytest.fixture
def client(server_url: str) -> Iterator[Client]:
    with Client(server_url, key=KEY, timeout_s=30) as client:
        yield client


def test_the_address_of_a_shop_is_enough(tmp_path: Path) -> None:
    tenants = write_shops(tmp_path)
    with server_process(None, len(SHOPS), tenants=tenants) as url:
        for shop in SHOPS:
            with Client(f"{url}/t/{shop}/", timeout_s=30) as client:
                release = client.release().release
                assert release is not None
                assert release.id == shop
                event = Event(user_id="anna", item_id="item-1", event_id="1")
                assert client.add(event).accepted == 1
                assert client.history("anna").items == ["item-1"]
                answer = client.recommend(RecommendRequest(user_id="anna", k=2))
                assert answer.release == shop
                assert client.similar("item-1", k=3).release == shop
                assert client.set_available("item-2", False).changed
        with (
            Client(f"{url}/t/nobody") as client,
            pytest.raises(NotFoundError, match="no tenant of that name"),
        ):
            client.recommend(RecommendRequest(sequence=["item-1"]))


def test_importing_the_client_loads_no_torch_and_no_server() -> None:
    heavy = ("torch", "faiss", "fastapi", "starlette", "numpy", "redis", "uvicorn", "limits")
    program = f"import service.client, sys; print([m for m in {heavy} if m in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"


def test_every_call_gets_a_response(client: Client) -> None:
    assert client.ready().status == "ready"
    assert client.canary().quality is None
    state = client.release()
    assert state.release is not None
    assert state.release.id == "first"
    events = [Event(user_id="anna", item_id=f"item-{row}", event_id=str(row)) for row in (1, 2)]
    assert client.add(*events).accepted == 2
    assert client.add(*events).duplicates == 2
    assert client.history("anna").items == ["item-1", "item-2"]

    response = client.recommend(RecommendRequest(user_id="anna", k=3, explain=True))
    assert len(response.items) == 3
    assert response.source == "interests"
    assert response.interests is not None
    assert not {"item-1", "item-2"} & {item.item_id for item in response.items}

    everything = {"not": [{"price": 5}]}
    rules = {"boost": [{"filter": everything, "add": 1}], "min_per_category": {"category 1": 2}}
    ruled = client.recommend(
        RecommendRequest(user_id="anna", k=3, interest_quota=2, min_new_items=1, **rules)
    )
    assert all((item.boost or 0) > 0 for item in ruled.items)

    best = response.items[0].item_id
    assert client.set_available(best, False).changed
    without_best = client.recommend(RecommendRequest(user_id="anna", k=3))
    assert best not in {item.item_id for item in without_best.items}
    assert client.set_available(best, True).changed
    both = client.set_all_available({best: False, "a typo": False})
    assert [(item.changed, item.known) for item in both.items] == [(True, True), (True, False)]
    page = client.withdrawn(limit=1)
    assert [*page.items, *client.withdrawn(after=page.next or "").items] == ["a typo", best]
    client.set_all_available({best: True, "a typo": True})
    assert client.withdrawn().items == []

    page = client.withdrawn(limit=1)
    assert page.cursor is None
    client.change("item-4", ItemChange(title="Four", attributes={"price": 4.5}))
    client.change_all(NamedItemChange(item_id="item-4", attributes={"tags": ["a", "b"]}))
    item = client.item("item-4")
    assert (item.title, item.attributes) == ("Four", {"price": 4.5, "tags": ["a", "b"]})

    similar = client.similar("item-1", k=4)
    assert len(similar.items) == 4
    assert client.forget("anna").forgotten == 2
    assert client.history("anna").count == 0
    assert client.reload().changed is False


def test_a_batch_has_an_error_in_the_place_of_an_invalid_request(client: Client) -> None:
    valid = RecommendRequest(sequence=["item-1"], categories=Categories(deny=["a"]), k=2)
    invalid = RecommendRequest.model_construct({"user_id", "k"}, user_id="a", k=0)
    answers = client.recommend_all([valid, invalid, valid]).answers
    assert [type(answer) for answer in answers] == [Recommendations, ErrorBody, Recommendations]


def test_caps_and_pages(server_url: str) -> None:
    with Client(server_url, key=KEY, timeout_s=30) as client:
        cap = FrequencyCap(times=1, hours=1)
        request = RecommendRequest(user_id="cleo", k=20, frequency_cap=cap, cursor="start")
        first = client.recommend(request)
        assert first.cursor is not None
        second = client.recommend(request.model_copy(update={"cursor": first.cursor}))
        assert len({item.item_id for item in [*first.items, *second.items]}) == 40
        assert client.recommend(request).cursor is None, "all have been shown"
        seen = SeenFilter(kinds=["purchase"], days=90)
        purchase = {"event": "purchase", "impression_id": first.impression_id}
        client.add(Event(user_id="cleo", item_id="item-1", **purchase))
        others = client.recommend(RecommendRequest(user_id="cleo", exclude_seen=seen))
        assert len(others.items) == 39


def test_the_asynchronous_client_makes_the_same_calls(server_url: str) -> None:
    async def call_all() -> None:
        async with AsyncClient(server_url, key=KEY, timeout_s=30) as client:
            await client.ready()
            await client.release()
            assert (await client.canary()).release is None
            await client.add(Event(user_id="ben", item_id="item-3"))
            request = RecommendRequest(user_id="ben", k=2)
            responses = await asyncio.gather(*(client.recommend(request) for _ in range(20)))
            assert len({str(response.items) for response in responses}) == 1
            assert len({response.impression_id for response in responses}) == 20
            assert len((await client.recommend_all([request])).answers) == 1
            assert (await client.history("ben")).items == ["item-3"]
            assert len((await client.similar("item-1", 2)).items) == 2
            assert not (await client.set_available("item-1", True)).changed
            assert not (await client.set_all_available({"item-1": True})).items[0].changed
            assert (await client.withdrawn()).next is None
            assert (await client.forget("ben")).forgotten == 1
            assert not (await client.reload()).changed
            with pytest.raises(InvalidRequestError):
                await client.recommend(
                    RecommendRequest(sequence=[], k=1).model_copy(update={"k": 0})
                )

    asyncio.run(call_all())


def test_both_clients_have_the_same_methods() -> None:
    def public(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)


@pytest.mark.parametrize("strange_id", STRANGE_IDS)
def test_an_id_may_have_any_characters(client: Client, strange_id: str) -> None:
    client.add(Event(user_id=strange_id, item_id=strange_id))
    assert client.history(strange_id).items == [strange_id]
    assert client.forget(strange_id).forgotten == 1
    with pytest.raises(NotFoundError):
        client.similar(strange_id)
    assert client.set_available(strange_id, False).changed
    assert client.set_available(strange_id, True).changed


def test_an_error_has_a_class_and_a_message(server_url: str, client: Client) -> None:
    invalid = RecommendRequest.model_construct({"user_id", "k"}, user_id="a", k=0)
    with pytest.raises(InvalidRequestError, match="greater than or equal to 1") as raised:
        client.recommend(invalid)
    assert raised.value.status == 422
    assert raised.value.code == "invalid_request"
    assert raised.value.problems[0].where == "k"
    assert raised.value.request_id

    with pytest.raises(NotFoundError, match="no-such-item"):
        client.similar("no-such-item")
    for key in (None, "wrong"):
        with Client(server_url, key=key) as client, pytest.raises(UnauthorizedError):
            client.reload()


# --- a fake server with errors, closed connections and malformed responses ---


FakeResponse = tuple[int, dict[str, str], bytes] | None  # status, headers, body; or no response


class FakeServer(ThreadingHTTPServer):
    """Sends the responses of a list in order, and records the deadline of each request."""

    daemon_threads = True

    def __init__(self, responses: list[FakeResponse]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.responses = responses
        self.deadlines: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def _respond(self) -> None:
        assert isinstance(self.server, FakeServer)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.deadlines.append(self.headers["x-deadline-ms"])
        response = self.server.responses.pop(0)
        if response is None:
            self.close_connection = True
            return
        status, headers, body = response
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = do_PUT = _respond  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def fake_server() -> Iterator[Callable[..., FakeServer]]:
    started: list[FakeServer] = []

    def start(*responses: FakeResponse) -> FakeServer:
        server = FakeServer(list(responses))
        started.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


OVERLOADED = (503, {"retry-after": "0"}, b'{"error":{"code":"overloaded","message":"queue: full"}}')
HISTORY = (200, {}, b'{"items":["a"],"count":1}')
ACCEPTED = (200, {}, b'{"accepted":1,"duplicates":0,"outdated":0}')


def overloaded(retry_after_s: int) -> FakeResponse:
    return 503, {"retry-after": str(retry_after_s)}, OVERLOADED[2]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients wait before they retry; they do not really wait."""
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    return waits


@pytest.mark.usefixtures("waits")
def test_an_idempotent_call_is_retried(fake_server: Callable[..., FakeServer]) -> None:
    server = fake_server(OVERLOADED, None, HISTORY)
    with Client(server.url, timeout_s=5) as client:
        assert client.history("a").items == ["a"]
    assert server.deadlines == ["5000"] * 3


def test_the_client_waits_as_long_as_the_service_asks(
    fake_server: Callable[..., FakeServer], waits: list[float]
) -> None:
    server = fake_server(overloaded(7), HISTORY)
    with Client(server.url) as client:
        client.history("a")
    assert len(waits) == 1
    assert 7 <= waits[0] <= 7 * 1.25


@pytest.mark.parametrize("retry_after_s", [0, 3])
@pytest.mark.parametrize("jitter", [0.0, 1.0], ids=["least jitter", "most jitter"])
def test_the_waits_grow_beyond_what_the_service_asks(
    fake_server: Callable[..., FakeServer],
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    retry_after_s: int,
    jitter: float,
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: low + jitter * (high - low))
    server = fake_server(*[overloaded(retry_after_s)] * 5, HISTORY)
    with Client(server.url, retries=5) as client:
        client.history("a")
    jitter_s = jitter * connection._JITTER_S
    expected = [retry_after_s + backoff_s + jitter_s for backoff_s in (0.1, 0.2, 0.4, 0.8, 1.6)]
    assert waits == pytest.approx(expected)


def test_the_waits_of_the_asynchronous_client_grow_too(
    fake_server: Callable[..., FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("random.uniform", lambda low, high: low)
    server = fake_server(overloaded(1), None, None, HISTORY)

    async def call() -> None:
        async with AsyncClient(server.url, retries=3) as client:
            monkeypatch.setattr(client._retrying, "sleep", sleep)
            await client.history("a")

    asyncio.run(call())
    assert waits == pytest.approx([1.1, 0.2, 0.4])


@pytest.mark.usefixtures("waits")
def test_the_client_gives_up(fake_server: Callable[..., FakeServer]) -> None:
    server = fake_server(OVERLOADED, OVERLOADED, OVERLOADED)
    with Client(server.url) as client, pytest.raises(UnavailableError, match="full") as raised:
        client.history("a")
    assert raised.value.code == "overloaded"
    assert len(server.deadlines) == 3
    later = fake_server(overloaded(3600))
    with Client(later.url) as client, pytest.raises(UnavailableError):
        client.history("a")
    assert len(later.deadlines) == 1


@pytest.mark.usefixtures("waits")
def test_events_without_an_id_are_not_sent_twice(fake_server: Callable[..., FakeServer]) -> None:
    server = fake_server(OVERLOADED, OVERLOADED, ACCEPTED)
    with Client(server.url) as client:
        with pytest.raises(UnavailableError):
            client.add(Event(user_id="a", item_id="b"))
        client.add(Event(user_id="a", item_id="b", event_id="1"))
    assert len(server.deadlines) == 3


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ((500, {}, b"<html>"), CallError),
        ((502, {}, b""), CallError),
        ((403, {}, b'{"error":{"code":"forbidden","message":"no"}}'), ForbiddenError),
        ((409, {}, b'{"error":{"code":"release_refused","message":"no"}}'), ConflictError),
        ((429, {"retry-after": "3"}, b"{}"), RateLimitedError),
        ((200, {}, b"{}"), CallError),
        ((200, {}, b"<html>"), CallError),
        ((302, {"location": "/"}, b""), CallError),
    ],
)
def test_any_other_response_is_an_error(
    fake_server: Callable[..., FakeServer],
    response: tuple[int, dict[str, str], bytes],
    expected: type[CallError],
) -> None:
    server = fake_server(response)
    with Client(server.url) as client, pytest.raises(CallError) as raised:
        client.history("a")
    assert type(raised.value) is expected
    assert raised.value.status == response[0]
    assert len(server.deadlines) == 1
    if expected is RateLimitedError:
        assert raised.value.retry_after_s == 3


def test_a_call_times_out(server_url: str) -> None:
    def time_out(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    with (
        Client(server_url, transport=httpx.MockTransport(time_out)) as client,
        pytest.raises(TimedOutError, match="GET /users/a/history: no answer in time"),
    ):
        client.history("a")


def test_the_key_is_not_in_the_repr(client: Client) -> None:
    assert KEY not in repr(client) + repr(vars(client))


def test_the_example_of_the_readme_runs(
    server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = re.findall(r"```python\n(.*?from service\.client.*?)```", README, re.DOTALL)
    exec(example.replace("http://127.0.0.1:8000", server_url), {})
    assert len(eval(capsys.readouterr().out)) == 5
