"""A load generator that costs a few microseconds a request: prepared bytes over kept connections.

Closed loop: each connection sends its next request when it has its answer; so the server does the
most it can.
Open loop: requests are due at a constant rate, whatever the server does, and latency counts
from when each was due; so a server that stalls cannot hide it by slowing the generator down.
"""

import asyncio
import gc
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import uvloop


@dataclass(frozen=True, slots=True)
class Answered:
    """due: when the request was to be sent; all three on the clock of time.perf_counter."""

    status: int
    due: float
    sent: float
    done: float


@dataclass(frozen=True)
class Load:
    """What came back in so many seconds."""

    seconds: float
    answers: Sequence[Answered]

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answered.status for answered in self.answers)

    @property
    def rate(self) -> float:
        return len(self.answers) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Of the latencies, from when each request was due."""
        return percentile_ms([each.done - each.due for each in self.answers], percent)


def percentile_ms(seconds: Sequence[float], percent: float) -> float:
    return 1e3 * float(np.percentile(seconds, percent))


def prepare(path: str, body: bytes) -> bytes:
    """A whole POST request."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One request at a time; says the status of each answer once all of it is there."""

    def __init__(self, answered: Callable[["_Connection", int], None]) -> None:
        self._answered = answered
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def send(self, request: bytes) -> None:
        assert self._transport is not None, "the server closed a connection that was in use"
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data if self._received else data
        head = received.find(b"\r\n\r\n")
        if head < 0:
            return
        start = received.index(b"content-length: ", 0, head) + 16
        length = int(received[start : received.index(b"\r\n", start)])
        if len(received) >= head + 4 + length:
            self._received = b""
            self._answered(self, int(received[9:12]))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def closed_loop(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, warm_up_s: float = 1.0
) -> Load:
    """Keep `connections` requests under way for `seconds`, after warming up."""
    with _no_collections():
        return uvloop.run(_closed_loop(port, requests, connections, seconds, warm_up_s))


@contextmanager
def _no_collections() -> Iterator[None]:
    """What is noted of each request stays; looking at all of it again made the load 150 ms late."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _closed_loop(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, warm_up_s: float
) -> Load:
    turn = itertools.cycle(requests)
    sent: dict[_Connection, float] = {}
    done: list[Answered] = []

    def send(connection: _Connection) -> None:
        sent[connection] = time.perf_counter()
        connection.send(next(turn))

    def answered(connection: _Connection, status: int) -> None:
        start = sent[connection]
        done.append(Answered(status, start, start, time.perf_counter()))
        send(connection)

    for _ in range(connections):
        send(await _connect(port, answered))
    await asyncio.sleep(warm_up_s)
    done.clear()
    start = time.perf_counter()
    await asyncio.sleep(seconds)
    took, counted = time.perf_counter() - start, list(done)
    for connection in sent:
        connection.close()
    return Load(took, counted)


def open_loop(
    port: int,
    requests: Sequence[bytes],
    rate: float,
    seconds: float,
    warm_up_s: float = 1.0,
    connections: int = 128,
) -> Load:
    """Have a request due every 1 / rate seconds; one that finds no connection free waits for it."""
    with _no_collections():
        return uvloop.run(_OpenLoop(requests).run(port, connections, rate, seconds, warm_up_s))


class _OpenLoop:
    def __init__(self, requests: Sequence[bytes]) -> None:
        self._turn = itertools.cycle(requests)
        self._idle: list[_Connection] = []
        self._due: deque[float] = deque()
        self._under_way: dict[_Connection, tuple[float, float]] = {}
        self._done: list[Answered] = []

    async def run(
        self, port: int, connections: int, rate: float, seconds: float, warm_up_s: float
    ) -> Load:
        for _ in range(connections):
            self._idle.append(await _connect(port, self._answered))
        start = time.perf_counter()
        end = start + warm_up_s + seconds
        next_due = start
        # The core is this program's alone: it looks at the clock all the time, as a timer of the
        # loop would be late by up to a millisecond.
        while (now := time.perf_counter()) < end or self._due or self._under_way:
            while next_due <= min(now, end):
                self._due.append(next_due)
                next_due += 1 / rate
            self._send_due()
            await asyncio.sleep(0)
        for connection in self._idle:
            connection.close()
        return Load(seconds, [each for each in self._done if each.due >= start + warm_up_s])

    def _send_due(self) -> None:
        while self._due and self._idle:
            connection = self._idle.pop()
            self._under_way[connection] = self._due.popleft(), time.perf_counter()
            connection.send(next(self._turn))

    def _answered(self, connection: _Connection, status: int) -> None:
        due, sent = self._under_way.pop(connection)
        self._done.append(Answered(status, due, sent, time.perf_counter()))
        self._idle.append(connection)


async def _connect(port: int, answered: Callable[[_Connection, int], None]) -> _Connection:
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: _Connection(answered), "127.0.0.1", port
    )
    return connection
