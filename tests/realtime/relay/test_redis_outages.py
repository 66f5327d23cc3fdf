"""What workers read while Redis fails in its worse ways, and what it says when it is back."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import shutil
import statistics
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from documents import Change
from realtime.feed_redis import SILENCE, RelayedSource
from realtime.log_redis import LogAway, LogDescription, LogMoved, away
from tests.realtime.relay.nodes import Node, Setting, nodes, watching
from tests.redis_server import RedisServer
from tests.waiting import until


async def test_redis_comes_back_with_an_older_log(setting: Setting, redis: RedisServer, tmp_path: Path) -> None:
    """A log that ends in the past is continued from its own end, and workers are told nothing twice."""
    with watching(setting) as truth:
        async with nodes(setting, 2) as workers:
            await setting.write(10)
            for node in workers:
                await truth.agrees(node)
            async with Redis.from_url(redis.url) as client:
                await client.save()
            shutil.copy(tmp_path / "dump.rdb", tmp_path / "older.rdb")
            await setting.write(30)
            for node in workers:
                await truth.agrees(node)
            redis.kill()
            shutil.copy(tmp_path / "older.rdb", tmp_path / "dump.rdb")
            redis.start()
            await setting.write(10)
            for node in workers:
                await truth.agrees(node)
            await until(lambda: not any(node.source.direct for node in workers))
            await setting.write(10)
            for node in workers:
                await truth.agrees(node)
            assert not any(node.resets for node in workers)


async def test_delay_while_redis_is_away(setting: Setting, redis: RedisServer) -> None:
    """Without Redis changes arrive as fast as the change stream brings them."""
    async with nodes(setting, 2) as workers:
        await setting.write(5)
        redis.kill()
        await until(lambda: all(node.source.direct for node in workers))
        clock = asyncio.get_running_loop().time
        delays = []
        for _ in range(20):
            expected, began = [len(node.changes) + 1 for node in workers], clock()
            await setting.write(1)
            for node, count in zip(workers, expected, strict=True):
                await node.has(count)
            delays.append(clock() - began)
        assert statistics.median(delays) < 1


async def test_worker_that_is_busy_with_a_batch(setting: Setting) -> None:
    """For longer than a relay may be silent: what has come meanwhile is read, and the database is left in peace."""
    async with nodes(setting, 1) as (relaying,):
        log = setting.log()
        source = RelayedSource(log, setting.open_stream, setting.collections, None)
        async with contextlib.aclosing(source.batches()) as batches:
            await anext(batches)
            await setting.write(1)
            await relaying.has(1)
            assert any(isinstance(entry, Change) for entry in await anext(batches))
            await asyncio.sleep(SILENCE.total_seconds() + 0.2)
            await setting.write(1)
            while not any(isinstance(entry, Change) for entry in await anext(batches)):
                pass
            assert source.switches == 0
        await log.close()


async def test_subscriptions_ended_again_and_again(setting: Setting, redis: RedisServer) -> None:
    """Workers whose subscriptions Redis ends listen again, and find in the log what was said meanwhile."""
    with watching(setting) as truth:
        async with nodes(setting, 3) as workers, Redis.from_url(redis.url) as client:
            for _ in range(10):
                await setting.write(5)
                await client.client_kill_filter(_type="pubsub")
            for node in workers:
                await truth.agrees(node)
            assert not any(node.resets for node in workers)


async def test_stale_relay_wakes_up(setting: Setting) -> None:
    """A relay that was stopped for longer than its lease appends nothing when it wakes up, and another one goes on."""
    with watching(setting) as truth:
        async with nodes(setting, 2) as workers:
            stale = next(node for node in workers if node.relay.leading)
            other = next(node for node in workers if node is not stale)
            await setting.write(5)
            await truth.agrees(other)
            log = await stale.log.describe()
            assert log is not None
            end = await stale.log.last(log.id)
            assert end is not None
            # What a relay does that read these changes before it was stopped, and is woken after others were written.
            await setting.write(20)
            await truth.agrees(other)
            late = [entry for entry in truth.entries if entry.position > end.entry.position]
            heard, length = len(other.entries), await stale.log.redis.xlen(stale.log._stream(log.id))
            with pytest.raises(LogMoved, match="the log ends at"):
                await stale.log.append(log.id, end.entry.position, late[:10])
            assert await stale.log.redis.xlen(stale.log._stream(log.id)) >= length
            await truth.agrees(other)
            assert len({entry.position for entry in other.entries}) == len(other.entries) > heard


@pytest.mark.parametrize("refused", ["-@scripting", "-xadd"])
async def test_redis_that_takes_no_entries(setting: Setting, redis: RedisServer, refused: str) -> None:
    """A relay that may not write says nothing, so workers do not rely on it; allowed again, it goes on."""
    with watching(setting) as truth:
        async with nodes(setting, 2) as workers, Redis.from_url(redis.url) as client:
            await setting.write(5)
            await client.execute_command("ACL", "SETUSER", "default", refused)  # type: ignore[no-untyped-call]
            await until(lambda: all(node.source.direct for node in workers))
            await setting.write(5)
            for node in workers:
                await truth.agrees(node)
            await client.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]
            await until(lambda: not any(node.source.direct for node in workers))
            for node in workers:
                await truth.agrees(node)
            assert not any(node.resets for node in workers)


Plant = Callable[[Redis, str], Awaitable[object]]


async def _description(client: Redis, prefix: str) -> None:
    for name in await client.hkeys(f"{prefix}:log"):
        await client.hset(f"{prefix}:log", name, "somebody's")


async def _entry(client: Redis, prefix: str, name: str, value: bytes) -> None:
    (stream,) = [key async for key in client.scan_iter(f"{prefix.replace('{', '?').replace('}', '?')}:log:*")]
    await client.xadd(stream, {name: value})


@pytest.mark.parametrize(
    "plant",
    [
        _description,
        lambda client, prefix: client.hset(f"{prefix}:log", "collections", "5"),
        lambda client, prefix: _entry(client, prefix, "somebody", b"else"),
        lambda client, prefix: _entry(client, prefix, "e", b"no BSON"),
        lambda client, prefix: _entry(client, prefix, "e", b""),
        lambda client, prefix: client.publish(f"{prefix}:entries", b""),
        lambda client, prefix: client.publish(f"{prefix}:head", b"5"),
        lambda client, prefix: client.publish(f"{prefix}:head", b'["log", "later", null, true]'),
    ],
    ids=["description", "collections", "fields", "bytes", "no bytes", "empty message", "number", "position"],
)
async def test_what_is_not_ours(setting: Setting, redis: RedisServer, plant: Plant) -> None:
    """What somebody else wrote where the log is ends nobody's feed: another log begins, and nothing is lost."""
    with watching(setting) as truth:
        async with nodes(setting, 2) as workers, Redis.from_url(redis.url) as client:
            await setting.write(5)
            prefix = workers[0].log._prefix
            await plant(client, prefix)
            await setting.write(5)
            for node in workers:
                await truth.agrees(node)
            # Planted again while workers read for themselves, who watch for a relay then.
            await plant(client, prefix)
            await until(lambda: not any(node.source.direct for node in workers))
            await setting.write(5)
            for node in workers:
                await truth.agrees(node)
            assert not any(node.resets for node in workers)


async def test_error_that_nobody_has_foreseen(
    setting: Setting, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the driver, say, on a connection that breaks: a worker reads for itself, and looks again."""
    caplog.set_level(logging.CRITICAL, "headwater.relay")
    async with nodes(setting, 1) as (relaying,), Redis.from_url(redis.url) as client:
        worker = Node(setting, setting.log())
        worker.start(relaying=False)
        try:
            await until(lambda: worker.entries and not worker.source.direct)
            faults = iter([AttributeError("'NoneType' object has no attribute 'read'")] * 3)
            describe = worker.log.describe

            async def faulty() -> LogDescription | None:
                for fault in faults:
                    raise fault
                return await describe()

            monkeypatch.setattr(worker.log, "describe", faulty)
            await client.client_kill_filter(_type="pubsub")
            await until(lambda: worker.source.direct)
            await until(lambda: not worker.source.direct)
            assert next(faults, None) is None
            await setting.write(1)
            await worker.has(1)
            assert not worker.resets
            assert relaying.relay.leading
        finally:
            await worker.stop()


async def test_terms_that_end_at_once(
    setting: Setting, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that gets the lease and cannot use the log tries ever more slowly, and says so once."""
    monkeypatch.setattr("realtime.relay.CANDIDACY", dt.timedelta(milliseconds=10))
    monkeypatch.setattr("realtime.relay.CANDIDACY_MAX", dt.timedelta(milliseconds=300))
    async with nodes(setting, 1) as (worker,), Redis.from_url(redis.url) as client:
        key = f"{worker.log._prefix}:log"
        await client.rename(key, "aside")
        await client.set(key, "somebody's")
        await until(lambda: worker.source.direct)
        clock = asyncio.get_running_loop().time
        terms, began = worker.relay.terms, clock()
        await until(lambda: worker.relay.terms >= terms + 3)
        # Between them lie two of the longest pauses, which jitter halves at most.
        assert clock() - began > 0.3
        said = [record.getMessage() for record in caplog.records if record.name == "headwater.relay"]
        faults = [line for line in said if "WRONGTYPE" in line]
        assert len(faults) == len(set(faults)) > 0
        await client.rename("aside", key)
        await until(lambda: not worker.source.direct)
        await setting.write(1)
        await worker.has(1)
        assert not worker.resets


async def test_candidate_that_failed_before(
    setting: Setting, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When another worker has the lease, one whose own terms failed asks for it as often as ever."""
    monkeypatch.setattr("realtime.relay.CANDIDACY", dt.timedelta(milliseconds=10))
    async with nodes(setting, 1) as (worker,), Redis.from_url(redis.url) as client:
        key = f"{worker.log._prefix}:log"
        await client.delete(key)
        await client.set(key, "somebody's")
        terms = worker.relay.terms
        await until(lambda: worker.relay.terms >= terms + 8)
        await client.set(worker.log.lease, b"another worker")

        async def attempts() -> int:
            return int((await client.info("commandstats"))["cmdstat_set"]["calls"])

        async def has_asked(times: int) -> bool:
            return await attempts() >= times

        # First the pause passes that it had come to. At that pace ten more would take more than twice as long.
        before = await attempts()
        await until(lambda: has_asked(before + 1))
        await until(lambda: has_asked(before + 11), seconds=3)


async def test_connection_that_was_closed_a_moment_ago() -> None:
    """uvloop has an error of its own for it. It ends no feed: Redis is away."""
    with pytest.raises(LogAway, match="the handler is closed"), away():
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
