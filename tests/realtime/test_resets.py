"""Resets, lagging clients, and connections that end: at every await point, and one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import pytest

from documents import ANONYMOUS, BY_ID, DatabaseAway, Entry, Filter, Position, QueryTooSlow, ResourceClass, Result, Sort
from realtime import Refused, connections
from realtime.protocol import CloseCode, ErrorCode
from tests.realtime.steps import Stepper
from tests.realtime.worker import PATIENCE, Client, Worker, connected, post, working
from tests.waiting import until

PUBLISHED = {"status": "published"}


@pytest.fixture
async def worker(mongodb_url: str, database_name: str) -> AsyncIterator[Worker]:
    """A worker over ten published posts."""
    async with working(mongodb_url, database_name) as worker:
        await worker.raw.posts.insert_many([post(n) for n in range(10)])
        await worker.caught_up()
        yield worker


async def damage(worker: Worker) -> None:
    """A change that cannot be followed: an update of a document whose image before was not kept."""
    await worker.raw.command("collMod", "posts", changeStreamPreAndPostImages={"enabled": False})
    await worker.raw.posts.update_one(
        {"_id": 1}, {"$inc": {"revision": 1}, "$set": {"title": f"unseen {time.monotonic_ns()}"}}
    )
    await worker.raw.command("collMod", "posts", changeStreamPreAndPostImages={"enabled": True})


async def test_reset_entry_at_every_await_point(worker: Worker) -> None:
    """A reset that overtakes the way to live is told, and what follows it is whole: no read leads over it."""
    at, points = 0, 1
    while at < points:

        async def hook(point: int, at: int = at) -> None:
            if point == at:
                await damage(worker)
                await worker.caught_up()

        async with connected(worker) as client:
            with Stepper(hook) as stepper:
                client.subscribe(worker.query(PUBLISHED))
                await client.received("ready")
                await worker.truth(client, "1")
            assert [frame["reason"] for frame in client.of_type("reset")] == ["history_lost"]
            # `reset` ends what was under way: of the first attempt at most a part was sent.
            kinds = [frame["type"] for frame in client.frames]
            assert kinds[kinds.index("reset") + 1 :][:2] == ["snapshot", "ready"]
            if at == 0:
                points = stepper.points - 1  # the path begins again after its first point
        at += 1
    assert points >= 6


async def test_reset_while_live(worker: Worker) -> None:
    """A change that cannot be told is a reset and a fresh snapshot, and no other view hears of it."""
    async with connected(worker) as client, connected(worker) as other:
        client.subscribe(worker.query(PUBLISHED))
        other.subscribe(worker.query({}, resource=worker.registry["comments"]))
        await client.received("ready")
        await other.received("ready")
        await damage(worker)
        await client.received("ready", 2)
        await worker.truth(client, "1")
        assert client.of_type("reset")[0]["reason"] == "history_lost"
        await other.synced(await worker.caught_up())
        assert other.of_type("reset") == []


async def test_collection_dropped_or_renamed(worker: Worker) -> None:
    """Both are a reset because the schema changed, and the snapshot after it is empty."""
    async with connected(worker) as client:
        client.subscribe(worker.query(PUBLISHED))
        await client.received("ready")
        await worker.raw.posts.rename("old_posts")
        await client.received("ready", 2)
        await worker.truth(client, "1")
        assert client.of_type("reset")[0]["reason"] == "schema_changed"
        assert client.views[client.of_type("ready")[1]["view"]].documents == {}


async def test_database_away_during_the_read(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read is tried again until the database answers; the client waits for `ready` and hears no lie."""
    monkeypatch.setattr("realtime.subscriptions.RETRY_SECONDS", 0.01)
    reader = worker.lists
    failures = 3

    class Failing:
        async def result(
            self, resource: ResourceClass, filter: Filter, sort: Sort, limit: int, since: Position
        ) -> Result:
            nonlocal failures
            if failures:
                failures -= 1
                raise DatabaseAway("the database does not answer")
            return await reader.result(resource, filter, sort, limit, since)

    worker.snapshots._reader = Failing()
    async with connected(worker) as client:
        client.subscribe(worker.query(PUBLISHED))
        await client.received("ready")
        assert failures == 0
        assert [frame["type"] for frame in client.frames] == ["subscribed", "snapshot", "ready"]
        await worker.truth(client, "1")


async def test_a_document_larger_than_the_outbox(worker: Worker) -> None:
    """It is sent alone, in the snapshot as in an event, and costs the client neither `ready` nor the connection."""
    await worker.raw.command("collMod", "posts", validationLevel="off")
    await worker.raw.posts.insert_one({"_id": "large", "status": "published", "body": "B" * 3_000_000})
    async with connected(worker) as client:
        client.subscribe(worker.query(PUBLISHED))
        await client.received("ready")
        await worker.raw.posts.update_one({"_id": "large"}, {"$set": {"title": "T"}})
        await worker.truth(client, "1")
        assert not client.connection.closing.done()
        assert client.of_type("reset") == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("this query cannot be run"), "internal_error"),
        (QueryTooSlow("the query was stopped at its time limit"), "query_too_slow"),
    ],
)
async def test_read_that_fails_for_good(worker: Worker, error: Exception, reason: str) -> None:
    """A query that the database cannot run ends the subscription, which is said, and nothing else."""

    class Broken:
        async def result(self, *_: object) -> Result:
            raise error

    async with connected(worker) as client:
        client.subscribe(worker.query({}, resource=worker.registry["comments"]), id="good")
        await client.received("ready")
        worker.snapshots._reader = Broken()
        client.subscribe(worker.query(PUBLISHED), id="bad")
        assert (await client.received("unsubscribed")) == {
            "type": "unsubscribed", "id": "bad", "reason": reason
        }  # fmt: skip
        assert set(client.connection.subscriptions) == {"good"}
        await client.synced(await worker.caught_up())


async def test_cancelled_waiter_of_a_shared_read(worker: Worker) -> None:
    """Two subscribers share one read; it survives the first one's leaving, and ends with the last one's."""
    reads: list[int] = []
    release = asyncio.Event()
    reader = worker.lists

    class Slow:
        async def result(
            self, resource: ResourceClass, filter: Filter, sort: Sort, limit: int, since: Position
        ) -> Result:
            reads.append(limit)
            await release.wait()
            return await reader.result(resource, filter, sort, limit, since)

    worker.snapshots._reader = Slow()
    async with connected(worker) as leaving, connected(worker) as staying, connected(worker) as other:
        leaving.subscribe(worker.query(PUBLISHED))
        staying.subscribe(worker.query(PUBLISHED))
        other.subscribe(worker.query({"status": "draft"}))
        await leaving.received("subscribed")
        await asyncio.sleep(0)
        await leaving.connection.unsubscribe("1", "requested")
        await other.connection.unsubscribe("1", "requested")
        assert [reading.waiters for reading in worker.snapshots._running.values()] == [1]
        release.set()
        await staying.received("ready")
        assert len(reads) == 2
        await worker.truth(staying, "1")
        assert leaving.of_type("snapshot", "ready") == []
        assert worker.snapshots._running == {}
        assert len(worker.views) == 1


async def test_reset_ends_a_read_under_way(worker: Worker) -> None:
    """Nobody may join a read from before a reset: it would lead over the reset, or wait for a time that is gone."""

    class Stuck:
        async def result(self, *_: object) -> Result:
            await asyncio.Event().wait()
            raise AssertionError

    worker.snapshots._reader = Stuck()
    view = worker.views.attach(worker.query(PUBLISHED), ANONYMOUS)
    reading = asyncio.create_task(worker.snapshots.read(view, BY_ID, 10))
    await asyncio.sleep(0)
    await damage(worker)
    await worker.caught_up()
    assert worker.snapshots._running == {}
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_unsubscribing_at_every_await_point(worker: Worker) -> None:
    """After `unsubscribed` nothing more of it comes, wherever it was; the same id and view can be had again."""
    at, points = 0, 1
    while at < points:
        async with connected(worker) as client:
            ended = asyncio.Event()

            async def hook(point: int, at: int = at, client: Client = client, ended: asyncio.Event = ended) -> None:
                if point == at:
                    await worker.raw.posts.update_one({"_id": 2}, {"$set": {"title": f"at {at}"}})
                    await worker.caught_up()
                    client.connection.unsubscribe_soon(client.connection.subscriptions["1"], "requested")
                    ended.set()
                    await asyncio.Event().wait()  # until the subscription's end cancels us

            with Stepper(hook) as stepper:
                client.subscribe(worker.query(PUBLISHED))
                waits = asyncio.create_task(client.received("ready"))
                await asyncio.wait({waits, asyncio.ensure_future(ended.wait())}, return_when=asyncio.FIRST_COMPLETED)
                waits.cancel()
            if not ended.is_set():
                break
            points = max(points, stepper.points + 1)
            await client.received("unsubscribed")
            assert client.connection.subscriptions == {}
            assert client.frames[-1]["type"] == "unsubscribed"
            assert len(worker.views) == 0
            client.subscribe(worker.query(PUBLISHED))
            await client.until(lambda client=client: client.frames[-1]["type"] == "ready")  # type: ignore[misc]
            await worker.truth(client, "1")
        at += 1
    assert at >= 6


async def test_connection_ended_at_every_await_point(worker: Worker) -> None:
    """Nothing is left behind: no task, no view, no read."""
    before = asyncio.all_tasks()
    at, acted = 0, True
    while acted:
        acted = False
        async with connected(worker) as client:
            ended = asyncio.Event()

            async def hook(point: int, at: int = at, client: Client = client, ended: asyncio.Event = ended) -> None:
                nonlocal acted
                if point == at:
                    acted = True
                    ending = asyncio.create_task(client.connection.end())
                    ending.add_done_callback(lambda _: ended.set())
                    await asyncio.Event().wait()

            with Stepper(hook):
                client.subscribe(worker.query(PUBLISHED))
                await asyncio.wait(
                    {asyncio.create_task(client.received("ready")), asyncio.create_task(ended.wait())},
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in asyncio.all_tasks() - before - {asyncio.current_task()}:
                    if task.get_coro().__qualname__ in ("Client.received", "Event.wait"):  # type: ignore[union-attr]
                        task.cancel()
        assert len(worker.views) == 0
        assert worker.snapshots._running == {}
        assert len(worker.manager) == 0
        at += 1
    assert at >= 6


async def test_slow_client_delays_nobody(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow one's view is dropped, and reset when it reads again; the other has every event meanwhile."""
    # The narrow outbox is the slow one's alone: a burst of twenty changes at once would fill the fast one's too.
    async with connected(worker) as fast, contextlib.AsyncExitStack() as stack:
        monkeypatch.setattr(worker.manager, "_outbox_max_bytes", 8_000)
        slow = await stack.enter_async_context(connected(worker))
        for client in (slow, fast):
            client.subscribe(worker.query(PUBLISHED))
            await client.received("ready")
        slow.pause()
        most = 0
        for n in range(100):
            await worker.raw.posts.update_one({"_id": n % 10}, {"$set": {"body": f"{n} " + "x" * 300}})
            most = max(most, slow.connection.outbox.bytes)
        await worker.truth(fast, "1")
        assert len(fast.of_type("event")) == 100
        assert fast.of_type("reset") == []
        assert most <= 8_000
        slow.resume()
        await slow.received("ready", 2)
        await worker.truth(slow, "1")
        assert [frame["reason"] for frame in slow.of_type("reset")] == ["lagging"]


async def test_client_that_never_reads_again(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is disconnected as a slow consumer when it has not drained in time."""
    monkeypatch.setattr(connections, "DRAIN_TIMEOUT", connections.DRAIN_TIMEOUT / 100)
    monkeypatch.setattr(worker.manager, "_outbox_max_bytes", 8_000)
    async with connected(worker) as slow:
        slow.subscribe(worker.query(PUBLISHED))
        await slow.received("ready")
        slow.pause()
        await worker.raw.posts.update_many({}, {"$set": {"body": "x" * 2_000}})
        async with asyncio.timeout(PATIENCE):
            assert await slow.connection.closing is CloseCode.SLOW_CONSUMER


async def test_client_that_does_not_take_its_snapshot(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a client that stops reading between two pages is disconnected, and does not hold the pages for ever."""
    monkeypatch.setattr(connections, "DRAIN_TIMEOUT", connections.DRAIN_TIMEOUT / 100)
    monkeypatch.setattr("realtime.snapshots.PAGE_DOCUMENTS", 1)
    monkeypatch.setattr(worker.manager, "_outbox_max_bytes", 1_500)
    async with connected(worker) as slow:
        slow.pause()
        slow.subscribe(worker.query(PUBLISHED))
        async with asyncio.timeout(PATIENCE):
            assert await slow.connection.closing is CloseCode.SLOW_CONSUMER
        assert slow.connection.outbox.bytes < 3_000


async def test_nothing_vouches_for_what_was_dropped(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a view is dropped, waiting `position` and `pong` frames go too; the pong comes after the new `ready`."""
    monkeypatch.setattr(worker.manager, "_outbox_max_bytes", 8_000)
    async with connected(worker) as client:
        client.subscribe(worker.query(PUBLISHED))
        await client.received("ready")
        client.pause()
        # The reader has taken this one already and holds it back: it is out of the outbox's reach.
        await worker.raw.posts.update_one({"_id": 0}, {"$set": {"title": "first"}})
        await worker.caught_up()
        await until(lambda: not len(client.connection.outbox))
        await worker.raw.posts.update_one({"_id": 0}, {"$set": {"title": "second"}})
        position = await worker.caught_up()
        client.connection.ping("p", position)
        await until(lambda: len(client.connection.outbox) == 2)  # the event and the pong
        client.connection.beat()
        assert len(client.connection.outbox) == 3
        await worker.raw.posts.update_many({}, {"$set": {"body": "x" * 3_000}})
        await worker.caught_up()
        client.resume()
        await client.received("pong")
        kinds = [frame["type"] for frame in client.frames]
        assert kinds[-5:] == ["event", "reset", "snapshot", "ready", "pong"]
        await worker.truth(client, "1")


async def test_frame_larger_than_the_outbox(mongodb_url: str, database_name: str) -> None:
    """An event above the bound is sent alone, in a snapshot and live."""
    async with working(mongodb_url, database_name, outbox_max_bytes=4_000) as worker, connected(worker) as client:
        await worker.raw.posts.insert_one(post(1, body="a" * 50_000))
        client.subscribe(worker.query(PUBLISHED))
        await client.received("ready")
        await worker.truth(client, "1")
        await worker.raw.posts.update_one({"_id": 1}, {"$set": {"body": "b" * 60_000}})
        await worker.truth(client, "1")
        await worker.raw.posts.insert_one(post(2, body="c" * 60_000))
        await worker.truth(client, "1")


async def test_feed_that_has_died(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """Connections are told to go elsewhere, those of then and those that come: silence is no answer."""

    class Damaged(Exception):
        pass

    async def broken() -> AsyncGenerator[Sequence[Entry], None]:
        for damage in [Damaged()]:
            raise damage
        yield []

    async with connected(worker) as client:
        worker.feed._source.batches = broken  # type: ignore[method-assign]
        await worker.feed.stop()
        worker.feed._task = asyncio.create_task(worker.feed._run())
        async with asyncio.timeout(PATIENCE):
            assert await client.connection.closing is CloseCode.SERVICE_RESTART
        assert not worker.feed.connected
        late = worker.manager.connect()
        assert late.closing.result() is CloseCode.SERVICE_RESTART
        await late.end()
    assert "the feed has ended" in caplog.text


async def test_second_subscription_to_a_view(worker: Worker) -> None:
    """It is refused with the name of the first, whatever the spelling of the filter."""
    async with connected(worker) as client:
        client.subscribe(worker.query({"status": "published", "slug": "s-1"}), id="first")
        with pytest.raises(Refused, match="first") as refused:
            client.subscribe(worker.query({"slug": {"$eq": "s-1"}, "status": "published"}), id="second")
        assert refused.value.code is ErrorCode.ALREADY_SUBSCRIBED
        with pytest.raises(Refused) as refused:
            client.subscribe(worker.query({}), id="first")
        assert refused.value.code is ErrorCode.DUPLICATE_ID
        with pytest.raises(Refused) as refused:
            await client.connection.unsubscribe("third", "requested")
        assert refused.value.code is ErrorCode.UNKNOWN_SUBSCRIPTION
        assert set(client.connection.subscriptions) == {"first"}
