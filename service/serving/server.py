"""The process: uvicorn over the app, and its end without a lost request."""

import asyncio
import gc
import logging
import multiprocessing
import signal
import sys
from contextlib import suppress
from socket import AF_INET, AF_INET6, create_server, socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from index.release.errors import ReleaseError
from service.app import create_app
from service.http.load_shedding import SheddingProtocol
from service.http.state import ServiceState
from service.settings import Settings

# Longer than the minute for which proxies keep theirs: else one is closed just as it is used.
_KEEP_ALIVE_S = 75
# An answer takes milliseconds; what is not done by then never will be.
_LAST_ANSWERS_S = 10
# Answering stops up to fifty times in a batch to give the thread that loads a release its turn at
# the interpreter. At Python's 5 ms a turn, the slowest answers meanwhile took twice as long.
_SWITCH_S = 0.0005
# Collections of the young between two of all that is not frozen, which take 10 ms each when there
# are 2,000 connections. At Python's 10 they came every second and made the slowest refusals.
_FULL_COLLECTION_AFTER = 100
_LOAD_AGAIN_S = 0.1

log = logging.getLogger(__name__)


def serve(settings: Settings, waits: bool = False) -> None:
    """Answer until SIGTERM or SIGINT.

    waits: other workers answer at the address, so this one does not listen before it has a release.
    Raises EmbeddedRedisError for a useless history folder, SetupError for other things amiss.
    """
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(*gc.get_threshold()[:2], _FULL_COLLECTION_AFTER)
    DrainingServer(create_app(settings), settings, waits).run()


class DrainingServer(uvicorn.Server):
    """On SIGTERM it first says that it is not ready and goes on answering, then it ends.

    Meanwhile whoever sends requests finds out and stops. A second signal, or SIGINT, ends it at
    once; either way requests under way get their answers.
    """

    def __init__(self, app: FastAPI, settings: Settings, waits: bool = False) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=SheddingProtocol,
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_LAST_ANSWERS_S,
            )
        )
        self._service: ServiceState = app.state.service
        self._drain_s = settings.drain_s
        self._workers = settings.workers
        self._waits = waits
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        if self._waits:
            await self._load()
        if self._workers > 1:
            host, port = self.config.host, self.config.port
            family = AF_INET6 if ":" in host else AF_INET
            sockets = [create_server((host, port), family=family, reuse_port=True)]
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if parent := multiprocessing.parent_process():
            self._loop.add_reader(parent.sentinel, self._orphaned, parent.sentinel)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        log.info("listening", extra={"host": host, "port": port})

    async def _load(self) -> None:
        live = self._service.live
        while live.release is None and not self.should_exit:
            with suppress(ReleaseError):  # logged, and kept by `live`
                await live.refresh()
            await asyncio.sleep(_LOAD_AGAIN_S)

    def _orphaned(self, sentinel: int) -> None:
        """Nobody is left to end this process, or to start another: so it ends."""
        asyncio.get_running_loop().remove_reader(sentinel)
        if not self._service.draining:
            self._drain()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and self._loop and not self._service.draining:
            self._loop.call_soon_threadsafe(self._drain)
        else:
            self.should_exit = True

    def _drain(self) -> None:
        self._service.draining = True
        # Clients that keep their connections are to open their next ones elsewhere. What every
        # answer carries is made anew from the first of these, once a second.
        for headers in (self.config.encoded_headers, self.server_state.default_headers):
            headers.append((b"connection", b"close"))
        log.info("draining", extra={"seconds": self._drain_s})
        asyncio.get_running_loop().call_later(self._drain_s, self._end)

    def _end(self) -> None:
        self.should_exit = True
