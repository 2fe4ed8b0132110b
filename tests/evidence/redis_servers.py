"""Real Redis servers: a single one, a master with replica and Sentinels, a small Cluster."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.store.embedded_redis import redis_server

HOST = "127.0.0.1"
NAME = "histories"
_SLOTS = 16_384
_BUS_OFFSET = 10_000  # from a node's port to its port for the other nodes
_LAST_PORT = 55_000
_TIMEOUT_S = 30.0


def free_port() -> int:
    """A port that is free, as is the port of the Cluster's bus that belongs to it."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port > _LAST_PORT:
            port -= _BUS_OFFSET
        try:
            for candidate in (port, port + _BUS_OFFSET):
                with socket.socket() as probe:
                    probe.bind((HOST, candidate))
        except OSError:
            continue
        return port


class RedisServer:
    """A redis-server process that can be stopped, killed and started again."""

    def __init__(
        self, folder: Path, *options: object, program: str | None = None, config: str = ""
    ) -> None:
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}"
        data_folder = folder / str(self.port)
        data_folder.mkdir(parents=True)
        config_file = data_folder / "redis.conf"
        config_file.write_text(config)
        self._command = [
            *(
                program or redis_server(),
                str(config_file),
                "--port",
                str(self.port),
                "--dir",
                str(data_folder),
            ),
            *("--bind", HOST, "--save", "", "--logfile", "log", *map(str, options)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(self._is_up)

    def _is_up(self) -> bool:
        try:
            return bool(self.execute("PING"))
        except redis.ConnectionError:
            assert self._process is not None
            assert self._process.poll() is None, f"ended: {self._command}"
            return False

    def execute(self, *command: object) -> Any:
        with self.client() as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def client(self) -> "redis.Redis[bytes]":
        return redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0))

    def send(self, signal_number: int) -> None:
        assert self._process is not None
        self._process.send_signal(signal_number)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def wait_until(condition: Callable[[], object], timeout_s: float = _TIMEOUT_S) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {condition}"
        time.sleep(0.01)


@contextmanager
def running(*servers: RedisServer) -> Iterator[None]:
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        yield


class SentinelServers:
    """A master, its replica, and three Sentinels that promote the replica if the master fails."""

    def __init__(self, folder: Path, down_after_ms: int = 300) -> None:
        self.master, self.replica = RedisServer(folder), RedisServer(folder)
        config = (
            f"sentinel monitor {NAME} {HOST} {self.master.port} 2\n"
            f"sentinel down-after-milliseconds {NAME} {down_after_ms}\n"
            f"sentinel failover-timeout {NAME} 3000\n"
        )
        self.sentinels = [RedisServer(folder, "--sentinel", config=config) for _ in range(3)]
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/{NAME}"

    @property
    def masters(self) -> list[RedisServer]:
        return [self.master]

    @contextmanager
    def running(self) -> Iterator["SentinelServers"]:
        with running(self.master, self.replica):
            self.replica.execute("REPLICAOF", HOST, self.master.port)
            wait_until(lambda: b"master_link_status:up" in _info(self.replica, "replication"))
            with running(*self.sentinels):
                wait_until(self.is_healthy)
                yield self

    def is_healthy(self) -> bool:
        """Whether the Sentinels see a healthy master and its replica."""
        return all(map(self._reports_healthy, self.sentinels))

    def _reports_healthy(self, sentinel: RedisServer) -> bool:
        with sentinel.client() as client:
            state, replicas = client.sentinel_master(NAME), client.sentinel_slaves(NAME)
        return bool(
            state["num-other-sentinels"] == 2
            and not state["is_sdown"]
            and [replica["master-link-status"] for replica in replicas if not replica["is_sdown"]]
            == ["ok"]
        )


class ClusterServers:
    """A Cluster of three masters, the first of which may have a replica."""

    def __init__(self, folder: Path, replica: bool = False) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", 500)
        self.nodes = [RedisServer(folder, *options) for _ in range(4 if replica else 3)]
        self.url = f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in self.nodes)}"

    @property
    def masters(self) -> list[RedisServer]:
        return self.nodes[:3]

    @contextmanager
    def running(self) -> Iterator["ClusterServers"]:
        with running(*self.nodes):
            self._join()
            yield self

    def _join(self) -> None:
        first, *others = self.nodes
        for number, node in enumerate(self.masters):
            slots = range(number * _SLOTS // 3, (number + 1) * _SLOTS // 3)
            node.execute("CLUSTER ADDSLOTS", *slots)
            node.execute("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in others:
            first.execute("CLUSTER MEET", HOST, node.port)
        wait_until(lambda: all(map(self._is_healthy_node, self.nodes)))
        for node in self.nodes[3:]:
            node.execute("CLUSTER REPLICATE", first.execute("CLUSTER MYID"))
        wait_until(self.is_healthy)

    def is_healthy(self) -> bool:
        """Whether all nodes know each other, and every replica follows its master."""
        followers = sum(
            b"master_link_status:up" in _info(node, "replication") for node in self.nodes
        )
        return followers == len(self.nodes) - 3 and all(map(self._is_healthy_node, self.nodes))

    def _is_healthy_node(self, node: RedisServer) -> bool:
        state = node.execute("CLUSTER INFO")
        text = str(state)
        return all(
            fact in text
            for fact in ("'cluster_state': 'ok'", f"'cluster_known_nodes': '{len(self.nodes)}'")
        )


def _info(server: RedisServer, section: str) -> bytes:
    with server.client() as client:
        client.set_response_callback("INFO", bytes)
        text: bytes = client.execute_command("INFO", section)  # type: ignore[no-untyped-call]
        return text
