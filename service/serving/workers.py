"""Several worker processes at one address: started, restarted, and ended together.

Each listens on a socket of its own, among which the kernel divides the connections; with one shared
socket, the worker that wakes up first would get nearly all of them. They share memory-mapped files,
that is vectors and index, and nothing else. The supervisor only looks after them, and after the
embedded Redis if there is one.
"""

import fcntl
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from prometheus_client.multiprocess import mark_process_dead
from pydantic import SecretStr

from service.serving.address import address_refused, listening_socket
from service.settings import Settings, SetupError, check_root
from service.settings_sources import METRICS_FOLDER, metrics_folder, set_metrics_folder
from service.store.embedded_redis import SOCKET_PATH_LIMIT_BYTES, EmbeddedRedis, EmbeddedRedisError
from service.telemetry.logs import configure_logs

_CHECK_INTERVAL_S = 0.5
# A worker that ends sooner than this is restarted after a delay, so that it cannot do only that.
_MIN_LIFETIME_S = 5.0
_RESTART_DELAY_S = 1.0
_CANNOT_START = 78  # EX_CONFIG of sysexits.h

# Not forked: neither torch nor faiss supports a fork of a process that has used them.
_SPAWN = multiprocessing.get_context("spawn")

# Answers requests in a worker: settings, and whether to listen only once a release is loaded. It is
# pickled, so it has to be a function of a module.
Serve = Callable[[Settings, bool], None]
log = logging.getLogger(__name__)


def supervise(settings: Settings, serve: Serve) -> None:
    """Run `serve` in as many processes as the settings say, until SIGTERM or SIGINT.

    Raises EmbeddedRedisError or SetupError.
    """
    if settings.tenants is None:
        check_root(settings.releases)  # before a Redis is started there
    with (
        _reserved_port(settings.host, settings.port) as port,
        _metrics_folder(),
        _embedded_redis(settings) as redis,
    ):
        settings = settings.replaced(port=port)
        if redis is not None:
            url = SecretStr(_socket_url(redis.socket))
            settings = settings.replaced(redis_url=url, redis_password=None)
        _Supervisor(settings, serve, redis).run()


@contextmanager
def _reserved_port(host: str, port: int) -> Iterator[int]:
    """A port on which only the workers started here can listen; a free one for 0."""
    try:
        holder = _exclusive_socket(host, port)
    except OSError as error:
        raise address_refused(host, port, error) from error
    with holder:
        yield holder.getsockname()[1]


def _exclusive_socket(host: str, port: int) -> socket.socket:
    """A bound socket that gets no connections, and beside which others may bind from now on.

    Bound with SO_REUSEPORT, it would also bind beside the workers of another service, and the two
    would share the connections. It listens for a moment, as that fails if anything else is bound;
    and the option is set after that. Raises OSError.
    """
    if port == 0:
        with listening_socket(host, port) as free:
            port = free.getsockname()[1]
    holder = listening_socket(host, port)
    if sys.platform != "linux":  # elsewhere a socket cannot stop listening and stay bound
        holder.close()
        holder = socket.socket(holder.family)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, port))
        return holder
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.shutdown(socket.SHUT_RD)
    return holder


@contextmanager
def _metrics_folder() -> Iterator[None]:
    """An empty folder for the workers' metrics: one of our own, or the one that the user names.

    There, files of earlier processes would be added to the metrics for ever.
    """
    if not (named := metrics_folder()):
        with tempfile.TemporaryDirectory(prefix="re4-metrics-") as folder:
            set_metrics_folder(folder)
            try:
                yield
            finally:
                set_metrics_folder(None)
        return
    try:
        Path(named).mkdir(parents=True, exist_ok=True)
        with (Path(named) / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for file in Path(named).glob("*.db"):
                file.unlink()
            yield
    except BlockingIOError as error:
        raise SetupError(
            f"{METRICS_FOLDER}={named}: another service uses it; give each its own, or none"
        ) from error


@contextmanager
def _embedded_redis(settings: Settings) -> Iterator[EmbeddedRedis | None]:
    if settings.redis_url is not None:
        yield None
        return
    redis = EmbeddedRedis(settings.embedded_redis_folder or settings.releases / "history")
    redis.start()
    try:
        yield redis
    finally:
        redis.stop()


def _socket_url(path: Path) -> str:
    absolute = path.resolve()
    if len(os.fsencode(absolute)) > SOCKET_PATH_LIMIT_BYTES:
        raise SetupError(
            f"{absolute}: too long for a socket; choose a shorter --embedded-redis-folder"
        )
    return f"unix://{quote(str(absolute))}"


@dataclass(frozen=True)
class _Worker:
    process: SpawnProcess
    started: float


class _Supervisor:
    def __init__(self, settings: Settings, serve: Serve, redis: EmbeddedRedis | None) -> None:
        self._settings = settings
        self._serve = serve
        self._redis = redis
        self._workers: list[_Worker] = []
        self._next_start = 0.0
        self._stopping = False
        self._cannot_start = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._forward)
        while not self._stopping and len(self._workers) < self._settings.workers:
            self._start()
        while self._workers:
            wait([worker.process.sentinel for worker in self._workers], _CHECK_INTERVAL_S)
            self._remove_ended()
            if not self._stopping:
                self._restart_missing()
        if self._cannot_start:
            raise SetupError("workers: one cannot start; the log says why")

    def _forward(self, number: int, _: FrameType | None) -> None:
        """Each worker drains as a single process does; a second signal ends them at once.

        SIGHUP comes as SIGTERM, and once: a closing terminal sends several.
        """
        if number == signal.SIGHUP and self._stopping:
            return
        self._stopping = True
        for worker in self._workers:
            if worker.process.is_alive():
                _interrupt(worker) if number == signal.SIGINT else worker.process.terminate()

    def _start(self) -> None:
        wait_for_release = bool(self._workers)
        process = _SPAWN.Process(
            target=_run_worker, args=(self._serve, self._settings, wait_for_release)
        )
        process.start()
        self._workers.append(_Worker(process, time.monotonic()))
        if self._stopping:  # a signal arrived meanwhile, and was not forwarded to this worker
            process.terminate()

    def _remove_ended(self) -> None:
        for worker in [worker for worker in self._workers if not worker.process.is_alive()]:
            self._workers.remove(worker)
            process, lifetime_s = worker.process, time.monotonic() - worker.started
            mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
            if process.exitcode == _CANNOT_START:
                self._cannot_start = True
                self._forward(signal.SIGTERM, None)
            elif not self._stopping:
                log.error("worker ended", extra={"worker": process.pid, "status": process.exitcode})
                if lifetime_s < _MIN_LIFETIME_S:
                    self._next_start = time.monotonic() + _RESTART_DELAY_S

    def _restart_missing(self) -> None:
        if self._redis is not None:
            try:
                self._redis.start()
            except EmbeddedRedisError as error:
                log.warning("history store cannot be started", extra={"error": str(error)})
        missing = self._settings.workers - len(self._workers)
        if missing and time.monotonic() >= self._next_start:
            self._start()


def _interrupt(worker: _Worker) -> None:
    if worker.process.pid is not None:
        os.kill(worker.process.pid, signal.SIGINT)


def _run_worker(serve: Serve, settings: Settings, wait_for_release: bool) -> None:
    """Runs in the worker's process, which has the supervisor's environment, and no other state."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor passes it on
    configure_logs(settings.log_level)
    try:
        serve(settings, wait_for_release)
    except SetupError as error:
        log.error("worker cannot start", extra={"error": str(error)})
        sys.exit(_CANNOT_START)
