"""Real Redis servers: one alone, a master with its replica and Sentinels, a small Cluster."""

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
_BUS = 10_000  # a node's port for the other nodes is so much above its own
_LAST_PORT = 55_000
_TIMEOUT_S = 30.0


def free_port() -> int:
    """A port that was free just now, and so was the one of the Cluster's bus that goes with it."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port > _LAST_PORT:
            port -= _BUS
        try:
            for each in (port, port + _BUS):
                with socket.socket() as probe:
                    probe.bind((HOST, each))
        except OSError:
            continue
        return port


class RedisServer:
    """A redis-server of its own, which can be stopped, killed and started again."""

    def __init__(
        self, folder: Path, *options: object, program: str | None = None, config: str = ""
    ) -> None:
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}"
        home = folder / str(self.port)
        home.mkdir(parents=True)
        file = home / "redis.conf"
        file.write_text(config)
        self._command = [
            *(program or redis_server(), str(file), "--port", str(self.port), "--dir", str(home)),
            *("--bind", HOST, "--save", "", "--logfile", "log", *map(str, options)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until(self._is_up)

    def _is_up(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.ConnectionError:
            assert self._process is not None
            assert self._process.poll() is None, f"ended: {self._command}"
            return False

    def ask(self, *command: object) -> Any:
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


def until(condition: Callable[[], object], timeout_s: float = _TIMEOUT_S) -> None:
    """Wait until it holds."""
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
    """A master, its replica, and three Sentinels who put the replica in its place if it is gone."""

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
            self.replica.ask("REPLICAOF", HOST, self.master.port)
            until(lambda: b"master_link_status:up" in _info(self.replica, "replication"))
            with running(*self.sentinels):
                until(self.is_healthy)
                yield self

    def is_healthy(self) -> bool:
        """Whether the Sentinels know a master and its replica, who are well."""
        return all(map(self._reports_healthy, self.sentinels))

    def _reports_healthy(self, sentinel: RedisServer) -> bool:
        with sentinel.client() as client:
            state, replicas = client.sentinel_master(NAME), client.sentinel_slaves(NAME)
        return bool(
            state["num-other-sentinels"] == 2
            and not state["is_sdown"]
            and [each["master-link-status"] for each in replicas if not each["is_sdown"]] == ["ok"]
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
            node.ask("CLUSTER ADDSLOTS", *slots)
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in others:
            first.ask("CLUSTER MEET", HOST, node.port)
        until(lambda: all(map(self._is_healthy_node, self.nodes)))
        for node in self.nodes[3:]:
            node.ask("CLUSTER REPLICATE", first.ask("CLUSTER MYID"))
        until(self.is_healthy)

    def is_healthy(self) -> bool:
        """Whether all know each other, and whoever is a replica follows its master."""
        followers = sum(
            b"master_link_status:up" in _info(node, "replication") for node in self.nodes
        )
        return followers == len(self.nodes) - 3 and all(map(self._is_healthy_node, self.nodes))

    def _is_healthy_node(self, node: RedisServer) -> bool:
        state = node.ask("CLUSTER INFO")
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
