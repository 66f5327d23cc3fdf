"""The relay on a Redis Cluster and behind Sentinels, which are real ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from api import Counters, parse_limits
from realtime import RedisPlace
from tests.listening import stop_listening
from tests.realtime.relay.nodes import Node, nodes, setting_on, watching
from tests.redis_sites import Cluster, Watched, programs, running_cluster, running_sentinel
from tests.waiting import until


@pytest.fixture(params=programs())
def cluster(tmp_path: Path, free_port: Callable[[], int], request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A Cluster, of each version that there is."""
    with running_cluster(tmp_path, free_port, request.param) as cluster:
        yield cluster


@pytest.fixture
def watched(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Watched]:
    """A master with a replica and a Sentinel."""
    with running_sentinel(tmp_path, free_port, programs()[0]) as watched:
        yield watched


async def test_cluster_whose_slot_moves(mongodb_url: str, database_name: str, cluster: Cluster) -> None:
    """The log is found on whichever node has its slot; when another node gets it, all go there and miss nothing."""
    async with setting_on(mongodb_url, database_name, cluster.url) as setting:
        with watching(setting) as truth:
            async with nodes(setting, 2) as workers:
                await until(lambda: not any(node.source.direct for node in workers))
                await setting.write(10)
                for node in workers:
                    await truth.agrees(node)
                cluster.move(cluster.slot(workers[0].log.lease))
                await setting.write(10)
                for node in workers:
                    await truth.agrees(node)
                await until(lambda: any(node.relay.leading for node in workers))
                await until(lambda: not any(node.source.direct for node in workers))
                await setting.write(10)
                for node in workers:
                    await truth.agrees(node)
                assert not any(node.resets for node in workers)


async def test_counters_on_a_cluster(cluster: Cluster) -> None:
    """What one process remembers another one sees, on whichever node the keys are."""
    for database in ("one", "two", "three", "four"):
        here, there = Counters(cluster.url, database), Counters(cluster.url, database)

        async def is_shared(here: Counters = here, there: Counters = there) -> bool:
            # Again, when the first try took longer than a request may wait for Redis.
            await here.mark(60, "seen", "mara")
            return await there.is_marked("seen", "mara")

        try:
            await until(is_shared)
            limits = parse_limits("3/hour")
            assert (await here.hit(limits, "requests", "mara")).allowed
        finally:
            await here.close()
            await there.close()


async def test_master_that_is_gone(mongodb_url: str, database_name: str, watched: Watched) -> None:
    """When the Sentinels have made the replica the master, the workers relay there, and have missed nothing."""
    async with setting_on(mongodb_url, database_name, watched.url) as setting:
        with watching(setting) as truth:
            async with nodes(setting, 2) as workers:
                await setting.write(10)
                for node in workers:
                    await truth.agrees(node)
                watched.kill_master()
                await setting.write(10)
                for node in workers:
                    await truth.agrees(node)
                await until(lambda: not any(node.source.direct for node in workers))
                await until(lambda: any(node.relay.leading for node in workers))
                await setting.write(10)
                for node in workers:
                    await truth.agrees(node)
                assert not any(node.resets for node in workers)


async def _hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_nobody_says_where_redis_is(
    mongodb_url: str, database_name: str, free_port: Callable[[], int], kind: str
) -> None:
    """However long it takes to ask: the worker reads the database's changes itself."""
    # They accept, and say nothing: each uses up all the time that it is given.
    ports = [free_port() for _ in range(8)]
    async with contextlib.AsyncExitStack() as stack:
        for port in ports:
            stack.push_async_callback(stop_listening, await asyncio.start_server(_hang, "127.0.0.1", port))
        nodes = ",".join(f"127.0.0.1:{port}" for port in ports)
        url = f"redis+{kind}://{nodes}" + ("/main" if kind == "sentinel" else "")
        setting = await stack.enter_async_context(setting_on(mongodb_url, database_name, url))
        worker = Node(setting, setting.log())
        worker.start(relaying=False)
        stack.push_async_callback(worker.stop)
        await until(lambda: worker.source.direct and worker.entries)
        await setting.write(1)
        await worker.has(1)


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_those_who_say_nothing(free_port: Callable[[], int], kind: str) -> None:
    """Are asked once each, and not until they answer: behind them may be one who does."""
    asked = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer.get_extra_info("sockname")[1])
        await _hang(reader, writer)

    ports = [free_port() for _ in range(2)]
    async with contextlib.AsyncExitStack() as stack:
        for port in ports:
            stack.push_async_callback(stop_listening, await asyncio.start_server(hang, "127.0.0.1", port))
        nodes = ",".join(f"127.0.0.1:{port}" for port in ports)
        place = RedisPlace.parse(f"redis+{kind}://{nodes}" + ("/main" if kind == "sentinel" else ""))
        pool = place.pool(ConnectionPool, "key", retry=Retry(NoBackoff(), 0))
        stack.push_async_callback(pool.disconnect)
        with pytest.raises(RedisError):
            await pool.get_connection()  # type: ignore[no-untyped-call]
    assert sorted(asked) == sorted(ports)


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "service", "password"),
    [
        ("redis://localhost", "", [("localhost", 6379)], "", None),
        ("rediss://:hunter2@cache.example.org:6380/2", "", [("cache.example.org", 6380)], "", "hunter2"),
        (
            "redis+sentinel://u:hunter2@[::1],b:26380/main/3",
            "sentinel",
            [("::1", 26379), ("b", 26380)],
            "main",
            "hunter2",
        ),
        ("rediss+cluster://a:1,b", "cluster", [("a", 1), ("b", 6379)], "", None),
    ],
)
def test_urls(url: str, kind: str, hosts: list[tuple[str, int]], service: str, password: str | None) -> None:
    """Each form is read, with the options of its connections; a password is not printed with it."""
    place = RedisPlace.parse(url)
    assert (place.kind, list(place.nodes), place.service) == (kind, hosts, service)
    assert place.options.get("password") == password
    assert "hunter2" not in repr(place)


def test_tls_and_database() -> None:
    """Of every form, what a connection is made with."""
    for url in ("rediss://a/3", "rediss+sentinel://a/main/3"):
        pool = RedisPlace.parse(url).pool(ConnectionPool, "key")
        assert issubclass(pool.connection_class, SSLConnection)
        assert pool.connection_kwargs["db"] == 3
    assert not issubclass(
        RedisPlace.parse("redis+cluster://a").pool(ConnectionPool, "key").connection_class, SSLConnection
    )
