"""The server process: uvicorn with the app, and a shutdown that loses no request."""

import asyncio
import gc
import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import socket
from threading import current_thread, main_thread
from types import FrameType
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from service.serving.address import address_refused, listening_socket
from service.settings import Settings, check_root

# Longer than the minute for which proxies keep their connections: else one is closed just as it is
# used.
_KEEP_ALIVE_S = 75
# Answers take milliseconds: a request that has none after this never will.
_SHUTDOWN_TIMEOUT_S = 10
# A batch yields up to fifty times to the thread that loads a release, each time for one switch
# interval. With Python's 5 ms the slowest responses took twice as long meanwhile.
_SWITCH_INTERVAL_S = 0.0005
# Collections of the second generation before a full one, which takes 10 ms with 2,000 connections.
# With Python's 10 it ran every second, and made the slowest rejections.
_FULL_COLLECTION_AFTER = 100
_LOAD_RETRY_S = 0.1

log = logging.getLogger(__name__)


class DrainingService(Protocol):
    """What the server needs of the service in `app.state.service`.

    draining: set by the server; the service then reports that it is not ready.
    """

    draining: bool

    async def load(self) -> bool:
        """Try to load what is not loaded yet; whether requests can be answered."""
        ...

    async def check(self) -> None:
        """Raises SetupError if the service cannot be used with its settings."""
        ...


def serve(
    settings: Settings,
    create_app: Callable[[Settings], FastAPI],
    protocol: type[asyncio.Protocol],
    wait_for_release: bool = False,
) -> None:
    """Answer requests until SIGTERM or SIGINT.

    protocol: uvicorn's HTTP protocol class. wait_for_release: listen only once a release is loaded,
    as other workers answer at the address.
    Raises EmbeddedRedisError for a folder that cannot hold an embedded Redis, SetupError for other
    settings that cannot be used.
    """
    if settings.tenants is None:
        check_root(settings.releases)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(*gc.get_threshold()[:2], _FULL_COLLECTION_AFTER)
    DrainingServer(create_app(settings), settings, protocol, wait_for_release).run()


class DrainingServer(uvicorn.Server):
    """On SIGTERM it reports that it is not ready, goes on answering for a while, then ends.

    Meanwhile load balancers notice and stop sending requests. SIGHUP, which a terminal sends when
    it is closed, does the same. A second SIGTERM, or SIGINT, ends it at once. Either way the
    requests under way are answered.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        protocol: type[asyncio.Protocol],
        wait_for_release: bool = False,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=protocol,
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,  # the app reads them, from the proxies of the settings
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
            )
        )
        self._service: DrainingService = app.state.service
        self._drain_s = settings.drain_s
        self._workers = settings.workers
        self._wait_for_release = wait_for_release
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        if parent := multiprocessing.parent_process():
            loop = asyncio.get_running_loop()
            loop.add_reader(parent.sentinel, self._on_orphaned, parent.sentinel)
        if self._wait_for_release:
            await self._load()
        listener = self._listen()
        await self._service.check()
        await super().startup([listener])
        self._loop = asyncio.get_running_loop()
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        log.info("listening", extra={"host": host, "port": port})

    def _listen(self) -> socket:
        host, port = self.config.host, self.config.port
        try:
            return listening_socket(host, port, shared=self._workers > 1)
        except OSError as error:
            raise address_refused(host, port, error) from error

    async def _load(self) -> None:
        while not self.should_exit and not await self._service.load():
            await asyncio.sleep(_LOAD_RETRY_S)

    def _on_orphaned(self, sentinel: int) -> None:
        """End when the supervisor has died: no process is left to stop this one."""
        asyncio.get_running_loop().remove_reader(sentinel)
        self._drain()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGHUP as well, unless it is ignored, as by nohup and in workers."""
        with super().capture_signals():
            if (
                current_thread() is not main_thread()
                or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            ):
                yield
                return
            before = signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        drains = sig in (signal.SIGTERM, signal.SIGHUP) and self._loop is not None
        if drains and not self._service.draining:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._drain)
        elif not drains or sig != signal.SIGHUP:  # of which a closing terminal sends several
            self.should_exit = True

    def _drain(self) -> None:
        if self._service.draining:
            return
        self._service.draining = True
        # Clients with a connection are to open their next one elsewhere. uvicorn builds the headers
        # of every response from the first of these, once a second.
        for headers in (self.config.encoded_headers, self.server_state.default_headers):
            headers.append((b"connection", b"close"))
        log.info("draining", extra={"seconds": self._drain_s})
        asyncio.get_running_loop().call_later(self._drain_s, self._exit)

    def _exit(self) -> None:
        self.should_exit = True
