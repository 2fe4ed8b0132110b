"""The client against a real server: every call, both ways; what goes wrong has a type."""

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

from service import client as client_module
from service.client import AsyncClient, Client
from service.client import operations as calls
from service.client.operations import CallError
from service.http.schemas.common import ErrorBody
from service.http.schemas.histories import Event
from service.http.schemas.recommend import AskedCategories, Recommendations, RecommendRequest

KEY = "sesam-open-up"
README = (Path(__file__).parents[3] / "service" / "README.md").read_text(encoding="utf-8")
STRANGE_IDS = ["a/b", "..", ".", "a b+c%2F", "é?#&=;:@", "/", "//x/history", "日本", "\x00\t"]


@pytest.fixture
def client(server_url: str) -> Iterator[Client]:
    with Client(server_url, key=KEY, timeout_s=30) as client:
        yield client


def test_importing_it_loads_no_torch_and_no_server() -> None:
    heavy = ("torch", "faiss", "fastapi", "starlette", "numpy", "redis", "uvicorn")
    program = f"import service.client, sys; print([m for m in {heavy} if m in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"


def test_every_call_is_answered(client: Client) -> None:
    assert client.ready().status == "ready"
    state = client.release()
    assert state.release is not None
    assert state.release.id == "first"
    events = [Event(user_id="anna", item_id=f"item-{row}", event_id=str(row)) for row in (1, 2)]
    assert client.add(*events).accepted == 2
    assert client.add(*events).duplicates == 2
    assert client.history("anna").items == ["item-1", "item-2"]

    answer = client.recommend(RecommendRequest(user_id="anna", k=3, explain=True))
    assert len(answer.items) == 3
    assert answer.source == "interests"
    assert answer.interests is not None
    assert not {"item-1", "item-2"} & {item.item_id for item in answer.items}

    best = answer.items[0].item_id
    assert client.set_available(best, False).changed
    again = client.recommend(RecommendRequest(user_id="anna", k=3))
    assert best not in {item.item_id for item in again.items}
    assert client.set_available(best, True).changed

    similar = client.similar("item-1", k=4)
    assert len(similar.items) == 4
    assert client.forget("anna").forgotten == 2
    assert client.history("anna").count == 0
    assert client.reload().changed is False


def test_a_batch_has_an_error_in_the_place_of_a_bad_request(client: Client) -> None:
    good = RecommendRequest(sequence=["item-1"], categories=AskedCategories(deny=["a"]), k=2)
    bad = RecommendRequest.model_construct({"user_id", "k"}, user_id="a", k=0)
    answers = client.recommend_all([good, bad, good]).answers
    assert [type(answer) for answer in answers] == [Recommendations, ErrorBody, Recommendations]


def test_the_same_calls_can_be_awaited(server_url: str) -> None:
    async def ask() -> None:
        async with AsyncClient(server_url, key=KEY, timeout_s=30) as client:
            await client.ready()
            await client.release()
            await client.add(Event(user_id="ben", item_id="item-3"))
            asked = RecommendRequest(user_id="ben", k=2)
            answers = await asyncio.gather(*(client.recommend(asked) for _ in range(20)))
            assert len({answer.model_dump_json() for answer in answers}) == 1
            assert len((await client.recommend_all([asked])).answers) == 1
            assert (await client.history("ben")).items == ["item-3"]
            assert len((await client.similar("item-1", 2)).items) == 2
            assert not (await client.set_available("item-1", True)).changed
            assert (await client.forget("ben")).forgotten == 1
            assert not (await client.reload()).changed
            with pytest.raises(calls.InvalidRequestError):
                await client.recommend(
                    RecommendRequest(sequence=[], k=1).model_copy(update={"k": 0})
                )

    asyncio.run(ask())


def test_both_clients_have_the_same_calls() -> None:
    def public(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)


@pytest.mark.parametrize("strange", STRANGE_IDS)
def test_an_id_of_any_characters_arrives(client: Client, strange: str) -> None:
    client.add(Event(user_id=strange, item_id=strange))
    assert client.history(strange).items == [strange]
    assert client.forget(strange).forgotten == 1
    with pytest.raises(calls.NotFoundError):
        client.similar(strange)
    assert client.set_available(strange, False).changed
    assert client.set_available(strange, True).changed


def test_what_goes_wrong_has_a_type_and_says_what(server_url: str, client: Client) -> None:
    bad = RecommendRequest.model_construct({"user_id", "k"}, user_id="a", k=0)
    with pytest.raises(calls.InvalidRequestError, match="greater than or equal to 1") as invalid:
        client.recommend(bad)
    assert invalid.value.status == 422
    assert invalid.value.code == "invalid_request"
    assert invalid.value.problems[0].where == "k"
    assert invalid.value.request_id

    with pytest.raises(calls.NotFoundError, match="no-such-item"):
        client.similar("no-such-item")
    for key in (None, "wrong"):
        with Client(server_url, key=key) as stranger, pytest.raises(calls.UnauthorizedError):
            stranger.reload()


# --- a server that refuses, hangs or talks nonsense: what no real one can be made to do at will ---


class Refusing(ThreadingHTTPServer):
    """Gives the answers of a list, one after the other, and counts what it was asked."""

    daemon_threads = True

    def __init__(self, answers: list[tuple[int, dict[str, str], bytes] | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        assert isinstance(self.server, Refusing)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append(self.headers["x-deadline-ms"])
        answer = self.server.answers.pop(0)
        if answer is None:  # hang up
            self.close_connection = True
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = do_PUT = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[Callable[..., Refusing]]:
    started: list[Refusing] = []

    def start(*answers: tuple[int, dict[str, str], bytes] | None) -> Refusing:
        server = Refusing(list(answers))
        started.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


BUSY = (503, {"retry-after": "0"}, b'{"error":{"code":"overloaded","message":"queue: full"}}')
DONE = (200, {}, b'{"items":["a"],"count":1}')
ACCEPTED = (200, {}, b'{"accepted":1,"duplicates":0,"outdated":0}')


def test_a_call_that_may_be_sent_twice_is_sent_again(
    refusing: Callable[..., Refusing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_FIRST_WAIT_S", 0.0)
    server = refusing(BUSY, None, DONE)
    with Client(server.url, timeout_s=5) as client:
        assert client.history("a").items == ["a"]
    assert server.asked == ["5000"] * 3


def test_it_waits_as_long_as_it_is_told_to(
    refusing: Callable[..., Refusing], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
    server = refusing((503, {"retry-after": "7"}, BUSY[2]), DONE)
    with Client(server.url) as client:
        client.history("a")
    assert len(waited) == 1
    assert 7 <= waited[0] <= 7 * 1.25


def test_it_gives_up(refusing: Callable[..., Refusing]) -> None:
    server = refusing(BUSY, BUSY, BUSY)
    with Client(server.url) as client, pytest.raises(calls.UnavailableError, match="full") as busy:
        client.history("a")
    assert busy.value.code == "overloaded"
    assert len(server.asked) == 3
    later = refusing((503, {"retry-after": "3600"}, BUSY[2]))
    with Client(later.url) as client, pytest.raises(calls.UnavailableError):
        client.history("a")
    assert len(later.asked) == 1


def test_events_without_an_id_are_not_sent_twice(refusing: Callable[..., Refusing]) -> None:
    server = refusing(BUSY, BUSY, ACCEPTED)
    with Client(server.url) as client:
        with pytest.raises(calls.UnavailableError):
            client.add(Event(user_id="a", item_id="b"))
        client.add(Event(user_id="a", item_id="b", event_id="1"))
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((500, {}, b"<html>"), CallError),
        ((502, {}, b""), CallError),
        ((403, {}, b'{"error":{"code":"forbidden","message":"no"}}'), calls.ForbiddenError),
        ((409, {}, b'{"error":{"code":"release_refused","message":"no"}}'), calls.ConflictError),
        ((429, {"retry-after": "3"}, b"{}"), calls.RateLimitedError),
        ((200, {}, b"{}"), CallError),
        ((200, {}, b"<html>"), CallError),
        ((302, {"location": "/"}, b""), CallError),
    ],
)
def test_what_is_no_answer_is_an_error(
    refusing: Callable[..., Refusing],
    answer: tuple[int, dict[str, str], bytes],
    expected: type[CallError],
) -> None:
    server = refusing(answer)
    with Client(server.url) as client, pytest.raises(CallError) as raised:
        client.history("a")
    assert type(raised.value) is expected
    assert raised.value.status == answer[0]
    assert len(server.asked) == 1
    if expected is calls.RateLimitedError:
        assert raised.value.retry_after_s == 3


def test_time_is_limited(server_url: str) -> None:
    def hang(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    with (
        Client(server_url, transport=httpx.MockTransport(hang)) as client,
        pytest.raises(calls.TimedOutError, match="GET /users/a/history: no answer in time"),
    ):
        client.history("a")


def test_the_key_is_not_shown(client: Client) -> None:
    assert KEY not in repr(client) + repr(vars(client))


def test_the_example_of_the_readme_runs(
    server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = re.findall(r"```python\n(.*?from service\.client.*?)```", README, re.DOTALL)
    exec(example.replace("http://127.0.0.1:8000", server_url), {})
    assert len(eval(capsys.readouterr().out)) == 5
