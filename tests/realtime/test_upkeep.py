"""The schema of a running server's database: what somebody dropped is installed again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from bson import ObjectId

from documents import Checkpoints, DatabaseAway, Tickets
from realtime.upkeep import Upkeep
from tests.realtime.worker import PATIENCE, Worker, post, working
from tests.waiting import until

Installs = Sequence[Callable[[], Awaitable[None]]]


@contextlib.asynccontextmanager
async def upkept(worker: Worker, own: Installs) -> AsyncIterator[None]:
    """The worker's upkeep runs."""
    upkeep = Upkeep(worker.feed, Checkpoints(worker.raw), worker.database, worker.registry, "error", own)
    running = asyncio.create_task(upkeep.run())
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def worker(mongodb_url: str, database_name: str) -> AsyncIterator[Worker]:
    """A worker with its upkeep."""
    async with (
        working(mongodb_url, database_name) as worker,
        upkept(worker, [Tickets(worker.database).install]),
    ):
        yield worker


async def indexes(worker: Worker, name: str) -> set[str]:
    return set(await worker.raw[name].index_information())


async def test_collection_is_dropped(worker: Worker) -> None:
    """It comes back empty, with its images, rules and indexes; a write meanwhile is no obstacle."""
    wanted = await indexes(worker, "posts")
    await worker.raw.posts.drop()
    await worker.raw.posts.insert_one(post(1))

    async def installed() -> bool:
        found = await (await worker.raw.list_collections(filter={"name": "posts"})).to_list(1)
        options = found[0].get("options", {}) if found else {}
        return options.get("validationAction") == "error" and await indexes(worker, "posts") == wanted

    await until(installed, seconds=PATIENCE)


async def test_database_is_dropped(worker: Worker) -> None:
    """What the server keeps besides documents gets its indexes again, those that let it expire among them."""
    await worker.raw.client.drop_database(worker.raw.name)

    async def installed() -> bool:
        return "expire_after_end" in await indexes(worker, "headwater_tickets") and "expiry" in await indexes(
            worker, "headwater_checkpoints"
        )

    await until(installed, seconds=PATIENCE)


async def test_database_is_away_during_the_repair(worker: Worker) -> None:
    """It is made again until it is whole."""
    failures, done = iter([DatabaseAway("away"), DatabaseAway("away")]), asyncio.Event()

    async def install() -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        done.set()

    async with upkept(worker, [install]):
        await worker.raw.posts.drop()
        await asyncio.wait_for(done.wait(), PATIENCE)


async def test_index_that_stands_in_the_way(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, drops nothing, and keeps neither other collections nor checkpoints away."""
    await worker.raw.comments.drop_index("post_oldest")
    await worker.raw.posts.drop_index("slug_unique")
    await worker.raw.posts.create_index([("slug", -1)], name="slug_unique")
    wanted = await indexes(worker, "users")
    await worker.raw.users.drop()

    async def installed() -> bool:
        return await indexes(worker, "users") == wanted and "post_oldest" in await indexes(worker, "comments")

    await until(installed, seconds=PATIENCE)
    count = await worker.raw.headwater_checkpoints.count_documents({})

    async def saved_since() -> bool:
        await worker.raw.posts.insert_one({"title": "a", "author_id": ObjectId()})
        return bool(await worker.raw.headwater_checkpoints.count_documents({}) >= count + 2)

    await until(saved_since, seconds=PATIENCE)
    told = [record.getMessage() for record in caplog.records if record.name == "headwater.upkeep"]
    assert told == [
        "the schema is not as the classes want it: posts: an index cannot be created (slug_unique: another one has its "
        "name or its fields, which `schema diff` shows)"
    ]
    assert (await worker.raw.posts.index_information())["slug_unique"]["key"] == [("slug", -1)]
