"""Workers that share a log: one relays, all read the same entries, whatever happens to Redis and to the relay."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest
from redis.asyncio import Redis

from documents import Change
from realtime.log_redis import RedisLog
from realtime.relay import Relay
from tests.realtime.relay.nodes import MAX_AGE, Node, Setting, nodes, watching
from tests.redis_server import RedisServer
from tests.waiting import until


async def test_one_worker_relays_and_all_read_the_same(setting: Setting) -> None:
    """Of three workers exactly one holds the lease, and each has every entry once and in order."""
    with watching(setting) as truth:
        async with nodes(setting, 3) as workers:
            await setting.write(50)
            for node in workers:
                await truth.agrees(node)
            assert [node.relay.leading for node in workers].count(True) == 1
            assert not any(node.source.direct for node in workers)


async def test_hidden_fields_do_not_reach_redis(setting: Setting) -> None:
    """A user's password hash is in the change stream's image, and neither in Redis nor in another worker's."""
    async with nodes(setting, 2) as workers:
        await setting.database.raw["users"].insert_one({"username": "mara", "password_hash": "$argon2id$secret"})
        await until(lambda: all(node.changes for node in workers))
        assert [sorted(node.changes[0].after or ()) for node in workers] == [["_id", "username"]] * 2
        log = workers[0].log
        description = await log.describe()
        assert description is not None
        logged = await log.redis.xrange(log._stream(description.id))
    assert b"mara" in repr(logged).encode()
    assert b"argon2id" not in repr(logged).encode()


async def test_relay_that_stops_is_followed_by_another(setting: Setting) -> None:
    """A relay that ends gives its lease back; another one goes on behind the log's end, and nobody loses an entry."""
    with watching(setting) as truth:
        async with nodes(setting, 3) as workers:
            for _ in range(2):
                relay = next(node for node in workers if node.relay.leading)
                await setting.write(10)
                workers.remove(relay)
                await relay.stop()
                await setting.write(10)
                await until(lambda: any(node.relay.leading for node in workers))
            for node in workers:
                await truth.agrees(node)


async def test_relay_that_died_without_a_word(setting: Setting, redis: RedisServer) -> None:
    """While a dead relay's lease lasts nobody relays; workers read directly when it takes long, and miss nothing."""
    with watching(setting) as truth:
        async with nodes(setting, 2) as workers:
            relay = next(node for node in workers if node.relay.leading)
            other = next(node for node in workers if node is not relay)
            await relay.stop()
            workers.remove(relay)
            client = Redis.from_url(redis.url)
            await client.set(other.log.lease, b"a dead relay", px=6_000)
            await setting.write(10)
            await until(lambda: other.source.direct)
            await setting.write(10)
            await truth.agrees(other)
            await client.delete(other.log.lease)
            await client.aclose()
            await until(lambda: other.relay.leading and not other.source.direct)
            await truth.agrees(other)


async def test_lease_that_another_has(setting: Setting, redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """A relay whose lease is another's ends its term, and its log does not put that down to Redis."""
    async with nodes(setting, 1) as (node,), Redis.from_url(redis.url) as client:
        await client.set(node.log.lease, b"another", px=60_000)
        await until(lambda: not node.relay.leading)
        # Once its term is over it asks for the lease again, in vain.
        await until(lambda: any("term" in text for text in caplog.messages))
        assert not [text for text in caplog.messages if "away" in text]
        assert await client.get(node.log.lease) == b"another"
        await client.delete(node.log.lease)
        await until(lambda: node.relay.leading)


async def test_redis_goes_away_and_comes_back_empty(setting: Setting, redis: RedisServer) -> None:
    """Without Redis every worker reads the change stream itself, and returns to the log of a new one without a seam."""
    with watching(setting) as truth:
        async with nodes(setting, 2) as workers:
            await setting.write(20)
            for _ in range(2):
                redis.kill()
                await setting.write(20)
                for node in workers:
                    await truth.agrees(node)
                assert all(node.source.direct for node in workers)
                redis.start()
                await until(lambda: not any(node.source.direct for node in workers))
                await setting.write(20)
                for node in workers:
                    await truth.agrees(node)
            assert not any(node.resets for node in workers)


async def test_redis_hangs(setting: Setting, redis: RedisServer) -> None:
    """A Redis that answers nothing is away, and what was sent to it meanwhile does no harm when it goes on."""
    with watching(setting) as truth:
        async with nodes(setting, 2) as workers:
            await setting.write(5)
            redis.pause()
            await setting.write(5)
            await until(lambda: all(node.source.direct for node in workers))
            redis.resume()
            await setting.write(5)
            for node in workers:
                await truth.agrees(node)
            await until(lambda: not any(node.source.direct for node in workers))
            for node in workers:
                await truth.agrees(node)


async def test_lost_message(setting: Setting, redis: RedisServer) -> None:
    """An entry that was appended but not heard is fetched from the log."""
    with watching(setting) as truth:
        async with nodes(setting, 2) as workers:
            await setting.write(5)
            relay = next(node for node in workers if node.relay.leading)
            other = next(node for node in workers if node is not relay)
            client = Redis.from_url(redis.url)
            # Nobody hears what is published until the subscription is there again; the connection stays up.
            channel = f"{relay.log._prefix}:entries"
            assert (await client.pubsub_numsub(channel))[0][1] == 2
            pubsubs = [c["id"] for c in await client.client_list(_type="pubsub")]
            for id in pubsubs:
                await client.client_kill_filter(_id=id)
            await setting.write(20)
            for node in workers:
                await truth.agrees(node)
            assert not other.source.direct
            await client.aclose()


async def test_two_relays_at_once(setting: Setting) -> None:
    """A relay that has lost its lease without noticing is refused by the log, and harms nothing."""
    with watching(setting) as truth:
        async with nodes(setting, 2) as workers:
            await setting.write(5)
            relay = next(node for node in workers if node.relay.leading)
            other = next(node for node in workers if node is not relay)
            terms = other.relay.terms
            # The lease goes while its holder believes to have it; the other one takes it within its candidacy.
            await relay.log.redis.delete(relay.log.lease)
            await until(lambda: other.relay.terms > terms or relay.relay.terms > 1)
            await setting.write(30)
            for node in workers:
                await truth.agrees(node)
            assert not any(node.resets for node in workers)


async def test_redis_without_memory(setting: Setting, redis: RedisServer) -> None:
    """A Redis that refuses to write counts as away; when it has memory again the log goes on."""
    with watching(setting) as truth:
        async with nodes(setting, 2) as workers:
            await setting.write(5)
            client = Redis.from_url(redis.url)
            await client.config_set("maxmemory", 1)
            await setting.write(5)
            await until(lambda: all(node.source.direct for node in workers))
            for node in workers:
                await truth.agrees(node)
            await client.config_set("maxmemory", 0)
            await client.aclose()
            await until(lambda: not any(node.source.direct for node in workers))
            for node in workers:
                await truth.agrees(node)


async def test_worker_that_fell_behind_the_log(setting: Setting) -> None:
    """A worker whose next entry was trimmed from the log reads it from the database, and then follows again."""
    with watching(setting) as truth:
        async with nodes(setting, 1, max_entries=10) as workers:
            await setting.write(5)
            await truth.agrees(workers[0])
            behind = workers[0].entries[-1].checkpoint
            await setting.write(40)
            await truth.agrees(workers[0])
            late = Node(setting, setting.log(max_entries=10), behind)
            late.start(relaying=False)
            try:
                await truth.agrees(late)
                await until(lambda: not late.source.direct)
                await truth.agrees(late)
                assert not late.resets
            finally:
                await late.stop()
            log = await workers[0].log.describe()
            assert log is not None
            assert await workers[0].log.redis.xlen(workers[0].log._stream(log.id)) <= 10


async def test_collection_is_dropped(setting: Setting) -> None:
    """The reset of a dropped collection passes through the log like a change."""
    async with nodes(setting, 2) as workers:
        await setting.write(3)
        await setting.database.raw.drop_collection("posts")
        await until(lambda: all(node.resets for node in workers))
        assert [node.resets[0].collections for node in workers] == [frozenset({"posts"})] * 2
        for node in workers:
            before = node.entries[: node.entries.index(node.resets[0])]
            assert len([entry for entry in before if isinstance(entry, Change)]) == len(node.changes) == 3


async def test_cancellation_at_every_turn(setting: Setting) -> None:
    """A call of Redis ends when it is cancelled, at whichever turn of the event loop, and does not go on for ever."""
    log = setting.log()
    try:
        await log.describe()  # connected
        for turns in range(40):
            asking = asyncio.create_task(_ask_for_ever(log))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait({asking}, timeout=1)
            ended = asking.cancelled()
            asking.cancel()
            assert ended, f"cancelled after {turns} turns"
    finally:
        await log.close()


async def _ask_for_ever(log: RedisLog) -> None:
    while True:
        await log.describe()


@pytest.mark.parametrize(
    ("collections", "max_age"),
    [(frozenset({"posts"}), MAX_AGE), (None, dt.timedelta())],
    ids=["other collections", "too old"],
)
async def test_log_that_is_not_worth_continuing(
    setting: Setting, collections: frozenset[str] | None, max_age: dt.timedelta
) -> None:
    """A log of other collections, or one that ended long ago, is replaced by one that begins now."""
    async with nodes(setting, 1) as (worker,):
        await setting.write(1)
        await worker.has(1)
        found = await worker.log.describe()
    assert found is not None
    expected = collections or setting.collections
    log = setting.log()
    relay = Relay(log, setting.open_stream, setting.checkpoints.latest, expected, max_age)
    running = asyncio.create_task(relay.run())

    async def is_replaced() -> bool:
        present = await log.describe()
        return present is not None and present.id != found.id and present.collections == expected

    try:
        await until(is_replaced)
        assert await log.first(found.id) is None
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await log.close()
