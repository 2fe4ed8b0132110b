"""A server in a thread of the test process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from service.app import create_app
from service.http.load_shedding import SheddingProtocol
from service.serving.server import DrainingServer
from service.settings import Settings


@contextmanager
def served_in_a_thread(settings: Settings, app: FastAPI | None = None) -> Iterator[DrainingServer]:
    server = DrainingServer(app or create_app(settings), settings, SheddingProtocol)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()
