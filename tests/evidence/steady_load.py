"""Requests at a steady rate, whatever the server does, and all that is known of their answers."""

import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

_LATEST = 20
_FEW = 10


@dataclass(frozen=True, slots=True)
class Answered:
    """sent, took: seconds, on the clock of time.perf_counter. code: of an error."""

    path: str
    sent: float
    took: float
    status: int
    degraded: bool
    code: str = ""


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, load: "SteadyLoad") -> None:
        self._load = load
        self._received = b""
        self._path, self._sent = "", 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        assert not self._sent, "the server closed a connection that was in use"
        self._load.idle.remove(self)

    def send(self, path: str, request: bytes) -> None:
        assert self._transport is not None
        self._path, self._sent = path, time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        start = head.find(b"content-length: ") + 16
        if not body or len(body) < int(head[start:].partition(b"\r\n")[0]):
            return
        took = time.perf_counter() - self._sent
        degraded, status = b'"degraded":true' in body, int(head[9:12])
        code = "" if status == 200 else json.loads(body)["error"]["code"]
        answered = Answered(self._path, self._sent, took, status, degraded, code)
        self._received, self._sent = b"", 0.0
        self._load.note(self, answered, body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class SteadyLoad:
    """answers: all so far, as they came. Used as a context, in which it sends `rate` a second."""

    def __init__(self, url: str, rate: float, users: int) -> None:
        self._host, self._port = url.removeprefix("http://").split(":")
        self._rate = rate
        self._requests = _requests(users)
        self.idle: deque[Connection] = deque()
        self.answers: list[Answered] = []
        self._news = asyncio.Event()

    async def __aenter__(self) -> "SteadyLoad":
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sending.cancel()
        for connection in self.idle:
            connection.close()

    async def _send(self) -> None:
        due = time.perf_counter()
        while True:
            if not self.idle:
                self.idle.append(await self.connect())
            self.ask(self.idle.popleft())
            due += 1 / self._rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    def ask(self, connection: Connection) -> None:
        connection.send(*next(self._requests))

    async def connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self), self._host, int(self._port)
        )
        return connection

    def note(self, connection: Connection, answered: Answered, body: bytes) -> None:
        self.idle.append(connection)
        self.answers.append(answered)
        self._news.set()

    async def last(self, seconds: float) -> None:
        """Go on for so long, and for some answers."""
        enough = len(self.answers) + _FEW
        await asyncio.sleep(seconds)
        while seconds and len(self.answers) < enough:
            await self._more()

    async def _more(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def normal(self, since: float, patience_s: float) -> float:
        """Seconds from then on until the last that was sent without all that it wants.

        It is known by the twenty after it. Raises TimeoutError.
        """
        async with asyncio.timeout(patience_s):
            while True:
                after = [each for each in self.answers if each.sent >= since]
                if len(after) >= _LATEST and not any(each.degraded for each in after[-_LATEST:]):
                    return max((each.sent - since for each in after if each.degraded), default=0.0)
                await self._more()


def _requests(users: int) -> Iterator[tuple[str, bytes]]:
    """Mostly of users with a stored history; some with a sequence too; some events."""
    for number in itertools.count():
        user = f"user-{number % users}"
        if number % 10 == 9:
            event = {"user_id": user, "item_id": f"item-{number % 400}", "event_id": str(number)}
            yield "/events", prepare("/events", event)
        else:
            asked: dict[str, object] = {"user_id": user, "k": 20}
            more: dict[str, object] = {} if number % 4 else {"sequence": ["item-1", "item-2"]}
            yield "/recommend", prepare("/recommend", asked | more)


def prepare(path: str, body: object) -> bytes:
    """A whole POST request."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content
