"""The core invariant at every await point: snapshot plus events equals a fresh query, whatever is written meanwhile.

Each test holds a subscription's way to live at one await point (see `steps`), commits a burst of writes there, and
lets it go on: either when the feed has seen the writes, or one step before it may, or only when the path waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import pytest

from documents import BY_ID, Position, Sort, sort_documents
from realtime import History
from tests.realtime.steps import Stepper
from tests.realtime.worker import PATIENCE, Client, Worker, connected, post, served_id, working

Write = Callable[[Worker], Awaitable[object]]
#: When the feed sees a burst: before the path goes on; when it waits again; only when it asks for it.
Seen = Literal["before", "after a step", "when asked"]
SEEN: tuple[Seen, ...] = ("before", "after a step", "when asked")

PUBLISHED = {"status": "published"}
#: Seeds: ids 0-29 published, 30-39 drafts. The title sorts them backwards.
SEEDS = [post(n, "published" if n < 30 else "draft", title=f"t{99 - n:02}") for n in range(40)]


@pytest.fixture
async def worker(mongodb_url: str, database_name: str) -> AsyncIterator[Worker]:
    """A worker over the seeds."""
    async with working(mongodb_url, database_name) as worker:
        await seed(worker)
        yield worker


async def seed(worker: Worker) -> None:
    await worker.raw.posts.delete_many({})
    await worker.raw.posts.insert_many(SEEDS)
    await worker.caught_up()
    worker.changes.clear()


def _set(worker: Worker, id: int, **fields: object) -> Awaitable[object]:
    result: Awaitable[object] = worker.raw.posts.update_one({"_id": id}, {"$set": fields})
    return result


async def insert(worker: Worker) -> None:
    await worker.raw.posts.insert_one(post(100, title="t50"))
    await worker.raw.posts.insert_one(post(101, "draft"))


async def update_within(worker: Worker) -> None:
    await _set(worker, 3, title="t00")
    await _set(worker, 3, title="t95x")
    await _set(worker, 31, title="nobody sees it")


async def leave(worker: Worker) -> None:
    await _set(worker, 5, status="draft")
    await _set(worker, 29, status="hidden")


async def enter(worker: Worker) -> None:
    await _set(worker, 35, status="published", title="t97")


async def leave_and_return(worker: Worker) -> None:
    await _set(worker, 6, status="draft")
    await _set(worker, 6, status="published")
    await _set(worker, 36, status="published")
    await _set(worker, 36, status="draft")


async def replace(worker: Worker) -> None:
    await worker.raw.posts.replace_one({"_id": 7}, post(7, title="t98"))
    await worker.raw.posts.replace_one({"_id": 8}, post(8, "draft"))


async def delete(worker: Worker) -> None:
    await worker.raw.posts.delete_one({"_id": 9})
    await worker.raw.posts.delete_one({"_id": 37})


async def delete_and_insert(worker: Worker) -> None:
    await worker.raw.posts.delete_one({"_id": 10})
    await worker.raw.posts.insert_one(post(10, title="t20"))


async def insert_many(worker: Worker) -> None:
    await worker.raw.posts.insert_many([post(n, "draft" if n % 3 else "published") for n in range(200, 212)])


async def update_many(worker: Worker) -> None:
    await worker.raw.posts.update_many({"_id": {"$gte": 20}}, {"$set": {"status": "published", "body": "wet"}})


async def delete_most(worker: Worker) -> None:
    """So many that a limited read has to be repeated."""
    await worker.raw.posts.delete_many({"_id": {"$gte": 2, "$lt": 28}})


async def bookkeeping(worker: Worker) -> None:
    await worker.raw.posts.update_one({"_id": 4}, {"$inc": {"revision": 1}})


async def transaction(worker: Worker) -> None:
    async with await worker.database.client.start_session() as session, session.start_transaction():
        posts = worker.raw.posts
        await posts.insert_one(post(300), session=session)
        await posts.update_one({"_id": 11}, {"$set": {"status": "draft"}}, session=session)
        await posts.update_one({"_id": 12}, {"$set": {"title": "t99"}}, session=session)
        await posts.delete_one({"_id": 13}, session=session)


WRITES: tuple[Write, ...] = (
    insert, update_within, leave, enter, leave_and_return, replace, delete, delete_and_insert, insert_many, update_many,
    delete_most, bookkeeping, transaction,
)  # fmt: skip


async def everything(worker: Worker) -> None:
    for write in WRITES:
        await write(worker)


class Scene:
    """One subscription, overtaken at one point."""

    def __init__(self, worker: Worker, client: Client, act: Write, at: int, seen: Seen, times: int = 1) -> None:
        self.worker, self.client = worker, client
        self.act, self.at, self.seen, self.times = act, at, seen, times
        self.acted = False
        self._closed_here = False

    async def hook(self, point: int) -> None:
        if not self.at <= point < self.at + self.times:
            return
        self.acted = True
        if self.seen == "before":
            await self.act(self.worker)
            await self.worker.caught_up()
            return
        self.worker.source.close()
        self._closed_here = True
        await self.act(self.worker)

    def suspended(self) -> None:
        if self._closed_here and self.seen == "after a step":
            self.worker.source.open()

    async def run(self, **query: Any) -> int:
        """Subscribe; returns the number of points. Everything is committed and received at the end."""
        feed = self.worker.feed
        passed = feed.passed

        async def asked(position: Position) -> None:
            self.worker.source.open()
            await passed(position)

        feed.passed = asked  # type: ignore[method-assign]
        try:
            with Stepper(self.hook, self.suspended) as stepper:
                self.client.subscribe(self.worker.query(PUBLISHED), **query)
                await self.client.received("ready")
                async with asyncio.timeout(PATIENCE):
                    await self.client.connection.subscriptions["1"].settled()
                if not self.acted:  # the path has fewer points than this: the writes come when it is live
                    await self.act(self.worker)
                await self.client.synced(await self.worker.caught_up())
        finally:
            del feed.passed
            self.worker.source.open()
        return stepper.points


def content_at(worker: Worker, position: str) -> dict[int, dict[str, Any]]:
    """All posts as they stood at a position: the seeds and what the feed brought up to there."""
    posts = {seed["_id"]: seed for seed in SEEDS}
    for change in worker.changes:
        if worker.positions.encode(change.position) <= position:
            if change.after is None:
                posts.pop(change.document_id, None)
            else:
                posts[change.document_id] = change.after
    return posts


def events_after(worker: Worker, position: str) -> list[tuple[str, str]]:
    """The events that a view of the published posts has after a position, by a second, simple reckoning."""
    expected = []
    for change in worker.changes:
        before, after = change.before, change.after
        was = before is not None and before["status"] == "published"
        now = after is not None and after["status"] == "published"
        if worker.positions.encode(change.position) <= position or not (was or now):
            continue
        if was and now:
            assert before is not None
            assert after is not None
            if {**before, "revision": 0} == {**after, "revision": 0}:
                continue
            expected.append(("update", served_id(change.document_id)))
        elif now:
            expected.append(("create" if before is None else "enter", served_id(change.document_id)))
        else:
            expected.append(("delete" if after is None else "leave", served_id(change.document_id)))
    return expected


async def judge(scene: Scene, *, sort: Sort = BY_ID, limit: int = 10_000) -> None:
    """The snapshot is exact at `ready`, the events are exactly what follows, and the sum is the present."""
    worker, client = scene.worker, scene.client
    kinds = [frame["type"] for frame in client.frames if frame["type"] != "pong"]
    first_event = kinds.index("event") if "event" in kinds else len(kinds)
    pages = kinds.count("snapshot")
    assert kinds[:first_event] == ["subscribed", *["snapshot"] * pages, "ready"]
    ready = client.of_type("ready")[0]
    at_ready = sort_documents(
        [d for d in content_at(worker, ready["position"]).values() if d["status"] == "published"], sort
    )
    shown = [item["document"] for frame in client.of_type("snapshot") for item in frame["items"]]
    assert [(d["id"], d["title"], d["status"]) for d in shown] == [
        (served_id(d["_id"]), d["title"], d["status"]) for d in at_ready[:limit]
    ]
    if len(at_ready) > limit:
        assert ready["complete"] is False
    view = client.views[ready["view"]]
    assert view.events == events_after(worker, ready["position"])
    if view.whole:
        await worker.truth(client, "1")


async def play(worker: Worker, act: Write, at: int, seen: Seen, **query: Any) -> int:
    await seed(worker)
    async with connected(worker) as client:
        scene = Scene(worker, client, act, at, seen)
        points = await scene.run(**query)
        await judge(scene, sort=query.get("sort", BY_ID), limit=query.get("limit", 10_000))
        return points


async def every_point(worker: Worker, act: Write, seen: Seen, **query: Any) -> int:
    """Play the scene at each await point in turn; returns how many there are."""
    at, points = 0, 1
    while at < points:
        points = max(points, await play(worker, act, at, seen, **query))
        at += 1
    return points


#: Each kind of write in the harshest way, and all of them together in every way.
CASES = [*((write, "when asked") for write in WRITES), *((everything, seen) for seen in SEEN)]


@pytest.mark.parametrize(("act", "seen"), CASES, ids=lambda value: getattr(value, "__name__", value))
async def test_write_at_every_await_point(worker: Worker, act: Write, seen: Seen) -> None:
    """Wherever the path is overtaken, by whichever write, nothing is missed and nothing comes twice."""
    points = await every_point(worker, act, seen)
    assert points >= 6  # the database, the feed, the encoding, the page, ...: the stepper does interpose


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("act", [delete_most, everything], ids=lambda act: act.__name__)
async def test_write_at_every_await_point_of_a_limited_and_sorted_snapshot(
    worker: Worker, act: Write, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot is the top of the result as it stood at `ready`, also when what was read does not suffice."""
    monkeypatch.setattr("realtime.snapshots.SPARE_DOCUMENTS", 4)
    monkeypatch.setattr("realtime.snapshots.PAGE_DOCUMENTS", 4)
    await every_point(worker, act, seen, sort=worker.sort("title"), limit=9)
    await every_point(worker, act, seen, sort=worker.sort("-title"), limit=9)


@pytest.mark.parametrize("seen", SEEN)
async def test_write_at_every_await_point_of_a_slow_consumer(
    mongodb_url: str, database_name: str, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an outbox of one page, the pages wait for the client, and the changes meanwhile wait in the history."""
    monkeypatch.setattr("realtime.snapshots.PAGE_DOCUMENTS", 3)
    async with working(mongodb_url, database_name, outbox_max_bytes=2_000) as worker:
        assert await every_point(worker, insert, seen) > 12


async def test_writes_at_several_points_of_a_slow_consumer(mongodb_url: str, database_name: str) -> None:
    """What is written while the client catches up, waiting for room in its outbox, is caught up with as well."""
    async with working(mongodb_url, database_name, outbox_max_bytes=2_000) as worker:
        bursts = 0

        async def touch(worker: Worker) -> None:
            nonlocal bursts
            bursts += 1
            await worker.raw.posts.update_many({"_id": {"$lt": 12}}, {"$set": {"body": f"{bursts}"}})

        for at in range(4, 10):
            await seed(worker)
            async with connected(worker) as client:
                scene = Scene(worker, client, touch, at, "before", times=6)
                await scene.run()
                # Live events that find no room are a reset; the client's model checks the rest.
                assert {frame["reason"] for frame in client.of_type("reset")} <= {"lagging"}
                await worker.truth(client, "1")
        assert bursts > 20


async def test_subscription_without_snapshot_at_every_await_point(worker: Worker) -> None:
    """`ready` names the position above which every event comes."""
    for seen in SEEN:
        at, points = 0, 1
        while at < points:
            await seed(worker)
            async with connected(worker) as client:
                scene = Scene(worker, client, everything, at, seen)
                points = max(points, await scene.run(snapshot=False))
                ready = client.of_type("ready")[0]
                assert client.views[ready["view"]].events == events_after(worker, ready["position"])
            at += 1


async def test_history_evicted_at_every_await_point(mongodb_url: str, database_name: str) -> None:
    """A history that forgets what the read needs leads to another read, or to `reset` and a snapshot: never a gap."""

    async def flood(worker: Worker) -> None:
        await insert_many(worker)
        await leave(worker)

    reasons: set[str] = set()
    async with working(mongodb_url, database_name, history=History(3, 67_108_864)) as worker:
        for seen in SEEN:
            at, points = 0, 1
            while at < points:
                await seed(worker)
                async with connected(worker) as client:
                    scene = Scene(worker, client, flood, at, seen)
                    points = max(points, await scene.run())
                    reasons |= {frame["reason"] for frame in client.of_type("reset")}
                    await worker.truth(client, "1")
                at += 1
                assert at < 60
        assert reasons == {"history_lost"}
