"""Fixtures of the whole suite: real database servers, and one empty database for each test.

The server is the embedded one, started as `make run` starts it but for the fsync at each commit. Set
`HEADWATER_TEST_MONGODB_URL` to run the same tests against a MongoDB replica set.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase

from documents.embedded import EmbeddedDatabase
from tests.redis_server import RedisServer, running_redis
from tests.secrecy import SECRECY, Secrecy
from tests.waiting import until

# A shared machine makes single examples slow now and then: how long one takes proves nothing, so no deadline.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "long",
    parent=settings.get_profile("default"),
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "20000")),
    print_blob=True,
)
# `--hypothesis-profile` is read later than this and wins.
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


#: Some two hundred databases; see `scratch_server`.
MODULES_A_SERVER = 8


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much some tests do.

    `--filter-cases N`: how many random (document, filter) pairs each agreement test judges at least.
    `--walk-documents N`: how many documents a list is walked over while it changes.
    `--offline-seconds N`: how long a browser is without a network.
    """
    parser.addoption("--filter-cases", type=int, default=None)
    parser.addoption("--walk-documents", type=int, default=5_000)
    parser.addoption("--offline-seconds", type=float, default=2)


def pytest_configure() -> None:
    """A shell in the background, and `nohup`, have the tests ignore signals, and each program that they start."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def find_free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session", autouse=True)
def secrecy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secrecy]:
    """Hears all that servers say to the tests of this process; fails the last of them if a secret was among it.

    It is made before every other fixture and so outlives them: when it looks through the logs, all servers have ended.
    """
    with SECRECY.listening():
        yield SECRECY
    SECRECY.hear_logs(tmp_path_factory.getbasetemp())
    SECRECY.check()


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Call it for a free port of the loopback; each call gives another one."""
    given: set[int] = set()

    def find() -> int:
        while (port := find_free_port()) in given:
            pass
        given.add(port)
        return port

    return find


@contextlib.contextmanager
def database_server(folder: Path, port: int) -> Iterator[str]:
    """The URL of an embedded database server."""
    # A loop of its own, which runs only while the server starts and stops: it outlives every test's loop.
    # Between the two nobody supervises, so a server that dies stays dead and the tests say so.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        server = EmbeddedDatabase(folder, port, durable=False)
        url = runner.run(server.start())
        try:
            yield url
        finally:
            runner.run(server.stop())


@pytest.fixture(scope="session")
def mongodb_url(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[str]:
    """The URL of the run's database server. Tests share it: use `database`, or a name of your own."""
    if url := os.environ.get("HEADWATER_TEST_MONGODB_URL"):
        yield url
        return
    with database_server(tmp_path_factory.mktemp("embedded"), free_port()) as url:
        yield url


@pytest.fixture(scope="session")
def scratch_server(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Callable[[], str]]:
    """Call it once a module for the URL of a server that is replaced by an empty one now and then.

    For modules whose tests have a database each: after some hundreds, the embedded server makes and drops each
    collection slowly for a minute or more.
    """
    if given := os.environ.get("HEADWATER_TEST_MONGODB_URL"):
        yield lambda: given
        return
    with contextlib.ExitStack() as running:
        modules, url = 0, ""

        def next_module() -> str:
            nonlocal modules, url
            if modules % MODULES_A_SERVER == 0:
                running.close()
                url = running.enter_context(database_server(tmp_path_factory.mktemp("scratch"), free_port()))
            modules += 1
            return url

        yield next_module


@pytest.fixture
def own_mongodb_url(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[str]:
    """The URL of a database server for this test alone.

    What a client that was killed has left open in the embedded one, a transaction say, holds up whoever comes next for
    a minute or more.
    """
    if given := os.environ.get("HEADWATER_TEST_MONGODB_URL"):
        yield given
        return
    running = database_server(tmp_path / "database", free_port())
    # In a thread: where a browser runs, this one has an event loop already.
    with ThreadPoolExecutor(1) as thread:
        url = thread.submit(running.__enter__).result()
        try:
            yield url
        finally:
            thread.submit(running.__exit__, None, None, None).result()


@pytest.fixture
def redis(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[RedisServer]:
    """A Redis server for this test, which may do with it what it likes."""
    with running_redis(tmp_path, free_port()) as server:
        yield server


@pytest.fixture(scope="module")
def module_redis(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[RedisServer]:
    """A Redis server that the tests of a module share; who breaks it mends it."""
    with running_redis(tmp_path_factory.mktemp("redis"), free_port()) as server:
        yield server


@pytest.fixture
def database_name() -> str:
    """A name that no other test uses."""
    return f"test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def database(mongodb_url: str, database_name: str) -> AsyncIterator[AsyncIOMotorDatabase[dict[str, Any]]]:
    """An empty database on the real server, with a client of this test's event loop; dropped afterwards."""
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongodb_url, tz_aware=True)
    try:
        yield client[database_name]
        await client.drop_database(database_name)
    finally:
        client.close()


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`await eventually(condition, seconds=...)`: wait until `condition()` is true, or fail."""
    return until
