"""The process: uvicorn over the app, and its end without a lost request."""

import asyncio
import logging
import signal
import sys
from socket import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.logs import configure_logs
from service.parts import Service
from service.settings import Settings

# Longer than the minute for which proxies keep theirs: else one is closed just as it is used.
_KEEP_ALIVE_S = 75
# An answer takes milliseconds; what is not done by then never will be.
_LAST_ANSWERS_S = 10
# Answering stops up to fifty times in a batch to give the thread that loads a release its turn at
# the interpreter. At Python's 5 ms a turn, the slowest answers meanwhile took twice as long.
_SWITCH_S = 0.0005

log = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Answer until SIGTERM or SIGINT. Raises EmbeddedRedisError for a useless history folder."""
    configure_logs(settings.log_level)
    sys.setswitchinterval(_SWITCH_S)
    app = create_app(settings)
    DrainingServer(app, settings).run()


class DrainingServer(uvicorn.Server):
    """On SIGTERM it first says that it is not ready and goes on answering, then it ends.

    Meanwhile whoever sends requests finds out and stops. A second signal, or SIGINT, ends it at
    once; either way requests under way get their answers.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_LAST_ANSWERS_S,
            )
        )
        self._service: Service = app.state.service
        self._drain_s = settings.drain_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        log.info("listening", extra={"host": host, "port": port})

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
