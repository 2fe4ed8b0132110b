"""A TCP proxy before a Redis that injects faults into the traffic.

    python tests/evidence/fault_proxy.py TARGET_PORT

The first line of output is the port that it listens on. Each line of input is the name of a fault,
which the proxy applies to old and new connections until the next; it prints the name once it does.
`none` is no fault.
"""

import asyncio
import os
import random
import socket
import struct
import sys
from collections.abc import Callable
from typing import cast

import hiredis
import uvloop

HOST = "127.0.0.1"
_READ = 65_536
_LINGER = struct.pack("ii", 1, 0)  # SO_LINGER: a reset instead of an orderly close

# Sent instead of each reply; the commands are not forwarded.
REPLIES = {
    "wrong type": b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "readonly": b"-READONLY You can't write against a read only replica.\r\n",
    "out of memory": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "no authentication": b"-NOAUTH Authentication required.\r\n",
    "moved": b"-MOVED 42 127.0.0.1:1\r\n",
    "cluster down": b"-CLUSTERDOWN The cluster is down\r\n",
    "busy": b"-BUSY Redis is busy running a script.\r\n",
    "another reply": b":7\r\n",
}
# Seconds by which a reply is late: within the timeout, beyond it, or random.
DELAYS: dict[str, Callable[[], float]] = {
    "latency": lambda: 0.03,
    "latency over the timeout": lambda: 0.08,
    "jitter": lambda: random.uniform(0, 0.1),
}
FAULTS = (
    *("refuse", "black hole", *DELAYS, "trickle", "reset", "half-close", "garbage", "truncation"),
    *REPLIES,
)
_TRICKLE_S = 0.01  # a byte


class Proxy:
    def __init__(self, target: int) -> None:
        self._target = target
        self._fault = "none"
        self._server: asyncio.Server | None = None
        self._port = 0
        self._clients: set[asyncio.StreamWriter] = set()

    async def run(self) -> None:
        await self._listen()
        print(self._port, flush=True)
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while line := await commands.readline():
            await self._set_fault(line.decode().strip())
            print(self._fault, flush=True)

    async def _set_fault(self, fault: str) -> None:
        if fault not in ("none", *FAULTS):
            raise SystemExit(f"no such fault: {fault}")
        self._fault = fault
        if fault == "refuse":
            assert self._server is not None
            self._server.close()
            self._server = None
            for client in self._clients:
                _reset(client)
        elif self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self._clients.add(client)
        try:
            from_server, server = await asyncio.open_connection(HOST, self._target)
        except OSError:
            client.close()
            self._clients.discard(client)
            return
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._forward_requests(reader, server, client))
                pumps.create_task(self._forward_replies(from_server, client))
        except* (OSError, RuntimeError, ValueError):
            pass  # one of the two has closed
        finally:
            self._clients.discard(client)
            for stream in (client, server):
                stream.close()

    async def _forward_requests(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(_READ):
            if self._fault in REPLIES:
                client.write(REPLIES[self._fault] * _count_commands(data))
            elif self._fault != "black hole":
                server.write(data)
        raise ConnectionResetError

    async def _forward_replies(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        loop, due = asyncio.get_running_loop(), 0.0
        while data := await reader.read(_READ):
            if self._fault in DELAYS:
                due = max(due, loop.time() + DELAYS[self._fault]())  # in order
                loop.call_at(due, _write, client, data)
            elif due > loop.time():
                loop.call_at(due, _write, client, data)
            else:
                await self._distort(data, client)
        raise ConnectionResetError

    async def _distort(self, data: bytes, client: asyncio.StreamWriter) -> None:
        half = data[: len(data) // 2]
        match self._fault:
            case "trickle":
                while data and self._fault == "trickle":
                    client.write(data[:1])
                    data = data[1:]
                    await asyncio.sleep(_TRICKLE_S)
                client.write(data)
            case "reset":
                client.write(half)
                await asyncio.sleep(0)
                _reset(client)
            case "half-close":
                client.write(half)
                client.write_eof()
            case "garbage":
                client.write(os.urandom(len(data)))
            case "truncation":
                client.write(half)
                await asyncio.Future()  # and nothing more
            case "black hole":
                pass
            case _:
                client.write(data)


def _count_commands(data: bytes) -> int:
    """The number of commands in the data; none of the client's is longer than one read."""
    reader = hiredis.Reader()
    reader.feed(data)
    return sum(1 for _ in iter(reader.gets, False))


def _write(client: asyncio.StreamWriter, data: bytes) -> None:
    if not client.is_closing():
        client.write(data)


def _reset(client: asyncio.StreamWriter) -> None:
    connection = cast(socket.socket, client.get_extra_info("socket"))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    cast(asyncio.WriteTransport, client.transport).abort()


if __name__ == "__main__":
    uvloop.run(Proxy(int(sys.argv[1])).run())
