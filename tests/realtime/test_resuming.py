"""Resuming at another worker than the one that was left."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from documents import Position
from tests.realtime.worker import Worker, connected, working


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
