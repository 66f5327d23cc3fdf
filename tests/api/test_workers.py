"""Several worker processes on one port, as an operator and the clients see them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.api.conftest import Starter
from tests.api.servers import Server, live, refused_start, serving, wait_until
from tests.api.watchers import publish, watching
from tests.processes import is_alive
from tests.redis_server import RedisServer
from tests.waiting import promptly

#: Nothing says which worker accepts a connection; of so many, each of three has one (but for one time in 10,000).
MANY = 24


@pytest.fixture
def workers(
    tmp_path: Path, redis: RedisServer, server_settings: Starter, free_port: Callable[[], int]
) -> Iterator[Server]:
    """Three workers, ready."""
    with serving(tmp_path, free_port(), server_settings(workers="3", redis_url=redis.url)) as server:
        wait_until(lambda: len(alive(server)) == 3)
        yield server


def alive(server: Server) -> list[int]:
    """The process ids of the workers that have served and have not ended."""
    served = [int(pid) for pid in re.findall(r"worker (\d+) serves", server.log)]
    return [pid for pid in served if is_alive(pid)]


def test_worker_killed(workers: Server) -> None:
    """Clients of all workers see every change once and in order, also those whose worker was killed."""
    user = workers.register("mara")
    with watching(workers, MANY) as watchers:
        titles = [publish(user, f"before {n}") for n in range(5)]
        for watcher in watchers:
            watcher.read(titles)
        victim, *others = alive(workers)
        os.kill(victim, signal.SIGKILL)
        # A connection to the victim would fail once, as every client knows it of connections that are kept alive.
        user = replace(user, client=workers.client(user.token))
        titles += [publish(user, f"after {n}") for n in range(5)]
        wait_until(lambda: len(alive(workers)) == 3)
        assert set(others) < set(alive(workers))
        titles += [publish(user, f"later {n}") for n in range(5)]
        for watcher in watchers:
            watcher.read(titles)
        moved = [watcher for watcher in watchers if len(watcher.recovered) > 1]
        assert 0 < len(moved) < MANY
        assert all(watcher.recovered == [None, True] for watcher in moved)
        assert not any("reset" in watcher.told for watcher in watchers)


def test_signing_out(workers: Server) -> None:
    """Ending a session at one worker closes its sockets at all of them, within a second."""
    workers.register("mara")
    tokens = workers.sign_in("mara")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(live(workers, tokens["access_token"])) for _ in range(MANY)]
        client = workers.client()
        assert client.post("/auth/logout", json={"refresh_token": tokens["refresh_token"]}).status_code == 204
        with promptly(seconds=3):  # with an allowance for a machine that does something else, too
            assert [socket.close_code() for socket in sockets] == [4503] * MANY
    assert workers.client(tokens["access_token"]).get("/users/me").status_code == 401


def test_rolling(workers: Server) -> None:
    """At SIGHUP each worker is replaced: no request fails, and clients are told to go and resume without a reset."""
    user = workers.register("mara")
    with watching(workers, MANY) as watchers:
        before = alive(workers)
        workers.process.send_signal(signal.SIGHUP)
        titles: list[str] = []
        while set(alive(workers)) & set(before) or len(alive(workers)) < 3:
            titles.append(publish(user, f"meanwhile {len(titles)}"))
            for watcher in watchers:
                watcher.read(titles)
        assert all("goaway" in watcher.told and "reset" not in watcher.told for watcher in watchers)
        assert all(watcher.recovered[1:] == [True] * (len(watcher.recovered) - 1) for watcher in watchers)


def test_supervisor_killed(workers: Server) -> None:
    """Workers do not outlive their supervisor, which nobody could stop any more."""
    pids = alive(workers)
    workers.process.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_stop(workers: Server) -> None:
    """SIGTERM ends all workers in good order."""
    pids = alive(workers)
    workers.stop()
    assert workers.process.returncode == 0
    assert not any(is_alive(pid) for pid in pids)
    workers.check_log()


def test_workers_that_cannot_start(tmp_path: Path, server_settings: Starter, free_port: Callable[[], int]) -> None:
    """When no worker starts the reason is told, and the exit code is 1."""
    settings = server_settings(workers="2", mongodb_url=f"mongodb://127.0.0.1:{free_port()}", port=str(free_port()))
    code, output = refused_start(tmp_path, settings)
    assert code == 1
    assert "no MongoDB server answers" in output


def test_several_workers_without_what_they_share(tmp_path: Path, server_settings: Starter) -> None:
    """A database in memory is refused, and in production Redis is needed."""
    code, output = refused_start(tmp_path, server_settings(workers="2", mongodb_url="mongomock://"))
    assert (code, "HEADWATER_WORKERS" in output) == (1, True)
    code, output = refused_start(tmp_path, server_settings(workers="2", environment="production"))
    assert (code, "HEADWATER_REDIS_URL" in output) == (1, True)
