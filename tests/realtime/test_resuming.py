"""Coming back: at another worker than the one that was left, and all at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from documents import Filter, Position, ResourceClass, Result, Sort
from realtime.protocol import ResetReason
from realtime.snapshots import Reader
from tests.realtime.worker import Worker, connected, working
from tests.waiting import until

CLIENTS, VIEWS = 5_000, 50


@pytest.fixture
async def worker(mongodb_url: str, database_name: str) -> AsyncIterator[Worker]:
    async with working(mongodb_url, database_name) as worker:
        yield worker


async def write(worker: Worker, title: str) -> Position:
    """Publish a post by hand; the cluster time at which it is there."""
    async with worker.database.session() as session:
        post = {"title": title, "slug": title, "status": "published"}
        await worker.raw.posts.insert_one(post)
        await worker.database.collection("posts").find_one({}, session=session)
        position: Position = worker.database.position(session)
        return position


async def test_worker_that_is_behind_the_client(worker: Worker) -> None:
    """A client from a worker that was ahead is answered when this one has come as far: it need not forget anything."""
    query = worker.query({"status": "published"})
    async with connected(worker) as client:
        client.subscribe(query)
        await client.received("ready")
        view = client.connection.subscriptions["1"].view.id
    worker.source.close()
    seen = await write(worker, "seen")
    async with connected(worker) as client:
        client.subscribe(query, since=(view, seen))
        await write(worker, "missed")
        worker.source.open()
        await client.received("ready")
        assert [frame["type"] for frame in client.frames] == ["subscribed", "event", "ready"]
        assert client.frames[0]["recovered"] is True
        assert client.frames[1]["document"]["title"] == "missed"


class CountingReader:
    """A reader that counts what it is asked."""

    def __init__(self, reader: Reader) -> None:
        self.reads = 0
        self._reader = reader

    async def result(self, resource: ResourceClass, filter: Filter, sort: Sort, limit: int, since: Position) -> Result:
        self.reads += 1
        return await self._reader.result(resource, filter, sort, limit, since)


async def test_crowd_that_must_read_anew(worker: Worker) -> None:
    """Five thousand clients of fifty views who come at once with positions of nowhere cost the database fifty reads."""
    await write(worker, "shown")
    await worker.caught_up()
    reader = worker.snapshots._reader = CountingReader(worker.lists)
    queries = [worker.query({"status": "published", "title": {"$ne": str(n)}}) for n in range(VIEWS)]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(worker)) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            client.subscribe(queries[number % VIEWS], since=("v" + "A" * 20, Position(number + 1, 1)))
        for client in clients:
            await client.received("ready")
            assert [frame["type"] for frame in client.frames] == ["subscribed", "reset", "snapshot", "ready"]
            assert len(next(iter(client.views.values())).documents) == 1
    assert reader.reads == VIEWS


async def test_reset_while_there_is_no_room(mongodb_url: str, database_name: str) -> None:
    """Of a view that is reset while its client does not read nothing more is sent: what is dropped leaves no hole."""
    async with working(mongodb_url, database_name, outbox_max_bytes=4_000) as worker:
        query = worker.query({"status": "published"})
        async with connected(worker) as client:
            client.subscribe(query)
            await client.received("ready")
            view = client.connection.subscriptions["1"].view.id
        seen = await write(worker, "seen")
        missed = [f"missed {number:02}" for number in range(40)]
        for title in missed:
            await write(worker, title)
        await worker.caught_up()
        async with connected(worker) as client:
            client.pause()
            client.subscribe(query, since=(view, seen))
            await client.stuck()
            outbox = client.connection.outbox
            await until(lambda: len(outbox) > 1 and outbox.bytes > 3_000)
            subscription = client.connection.subscriptions["1"]
            for _ in range(10):  # until it waits for room, and not only is about to
                await asyncio.sleep(0)
            subscription.reset(ResetReason.HISTORY_LOST)
            client.resume()
            await client.received("ready")
            kinds = [frame["type"] for frame in client.frames]
            before = client.frames[: kinds.index("reset")]
            told = [frame["document"]["title"] for frame in before if frame["type"] == "event"]
            assert told == missed[: len(told)]
            assert len(told) < len(missed)
            await worker.truth(client, "1")
