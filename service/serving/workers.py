"""Several processes that answer at one address: started, started again, and ended together.

Each listens on a socket of its own, among which the kernel divides the connections; had they one
together, whoever wakes up first would get nearly all. They share what is memory-mapped: vectors,
index, and no more. This process only looks after them, and after the Redis of our own if there is
one.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from prometheus_client.multiprocess import mark_process_dead
from pydantic import SecretStr

from service.settings import Settings, SetupError
from service.store.embedded_redis import SOCKET_PATH_LIMIT_BYTES, EmbeddedRedis, EmbeddedRedisError
from service.telemetry.logs import configure_logs

_LOOK_S = 0.5
# A worker that ends sooner than this is not started again at once: it would do nothing else.
_SHORT_LIFE_S = 5.0
_PAUSE_S = 1.0
_CANNOT_START = 78  # EX_CONFIG of sysexits.h

# Not forked: neither torch nor faiss promises to work in a copy of a process that has used them.
_SPAWN = multiprocessing.get_context("spawn")

log = logging.getLogger(__name__)


def supervise(settings: Settings) -> None:
    """Answer in as many processes as the settings say, until SIGTERM or SIGINT.

    Raises EmbeddedRedisError or SetupError.
    """
    with (
        _reserved(settings.host, settings.port) as port,
        tempfile.TemporaryDirectory(prefix="re4-metrics-") as metrics,
        _own_redis(settings) as redis,
    ):
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", metrics)
        changes: dict[str, object] = {"port": port}
        if redis is not None:
            changes["redis_url"] = SecretStr(_url(redis.socket))
        _Supervisor(settings.model_copy(update=changes), redis).run()


@contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """A port that the workers can listen on, and nobody else; a free one for 0."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            holder.bind((host, port))
        except OSError as error:
            raise SetupError(f"--host {host} --port {port}: cannot be used ({error})") from error
        yield holder.getsockname()[1]


@contextmanager
def _own_redis(settings: Settings) -> Iterator[EmbeddedRedis | None]:
    if settings.redis_url is not None:
        yield None
        return
    redis = EmbeddedRedis(settings.embedded_redis_folder or settings.releases / "history")
    redis.start()
    try:
        yield redis
    finally:
        redis.stop()


def _url(path: Path) -> str:
    whole = path.resolve()
    if len(os.fsencode(whole)) > SOCKET_PATH_LIMIT_BYTES:
        raise SetupError(f"{whole}: too long for a socket; choose a shorter history folder")
    return f"unix://{quote(str(whole))}"


@dataclass(frozen=True)
class _Worker:
    process: SpawnProcess
    started: float


class _Supervisor:
    def __init__(self, settings: Settings, redis: EmbeddedRedis | None) -> None:
        self._settings = settings
        self._redis = redis
        self._workers: list[_Worker] = []
        self._not_before = 0.0
        self._ending = False
        self._hopeless = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        while not self._ending and len(self._workers) < self._settings.workers:
            self._start()
        while self._workers:
            wait([worker.process.sentinel for worker in self._workers], _LOOK_S)
            self._bury()
            if not self._ending:
                self._mend()
        if self._hopeless:
            raise SetupError("workers: one cannot start; the log says why")

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        """Each worker ends as a process alone would; a second signal ends them at once."""
        self._ending = True
        for worker in self._workers:
            if worker.process.is_alive():
                worker.process.terminate() if number == signal.SIGTERM else _interrupt(worker)

    def _start(self) -> None:
        process = _SPAWN.Process(target=_work, args=(self._settings, bool(self._workers)))
        process.start()
        self._workers.append(_Worker(process, time.monotonic()))
        if self._ending:  # since a moment ago, when it was not yet one of those that were told
            process.terminate()

    def _bury(self) -> None:
        for worker in [worker for worker in self._workers if not worker.process.is_alive()]:
            self._workers.remove(worker)
            process, lived_s = worker.process, time.monotonic() - worker.started
            mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
            if process.exitcode == _CANNOT_START:
                self._hopeless = True
                self._pass_on(signal.SIGTERM, None)
            elif not self._ending:
                log.error("worker ended", extra={"worker": process.pid, "status": process.exitcode})
                if lived_s < _SHORT_LIFE_S:
                    self._not_before = time.monotonic() + _PAUSE_S

    def _mend(self) -> None:
        if self._redis is not None:
            try:
                self._redis.start()
            except EmbeddedRedisError as error:
                log.warning("history store cannot be started", extra={"error": str(error)})
        missing = self._settings.workers - len(self._workers)
        if missing and time.monotonic() >= self._not_before:
            self._start()


def _interrupt(worker: _Worker) -> None:
    if worker.process.pid is not None:
        os.kill(worker.process.pid, signal.SIGINT)


def _work(settings: Settings, waits: bool) -> None:
    """In the process of a worker, whose environment and no more is that of the supervisor."""
    from service.serving.server import serve

    configure_logs(settings.log_level)
    try:
        serve(settings, waits)
    except SetupError as error:
        log.error("worker cannot start", extra={"error": str(error)})
        sys.exit(_CANNOT_START)
