"""Reads that are not snapshots: a burst of writes between the first and the second half of one read.

A cursor fetches a long result in batches, and what changes meanwhile may appear in either form, twice, or not at all.
Here that happens on purpose and always at the same place: documents up to a pivot (in the order of the sort) are as
they stood before the burst, the others as they stand after it, and the read's cluster time is that of the second half.
"""

from __future__ import annotations

import pytest

from documents import BY_ID, Filter, Position, ResourceClass, Result, Sort, sort_documents
from realtime import History
from tests.realtime.test_subscribe_path import (
    PUBLISHED,
    WRITES,
    Scene,
    Write,
    enter,
    everything,
    judge,
    seed,
    worker,
)
from tests.realtime.worker import Worker, connected, post, working

__all__ = ["worker"]  # a fixture


async def drop_top(worker: Worker) -> None:
    """So many of the first leave that one from far behind, which was not read, seems to be needed."""
    await worker.raw.posts.delete_many({"_id": {"$gte": 25, "$lt": 30}})
    await worker.raw.posts.insert_one(post(400, title="zz"))


class TornReader:
    """Reads twice, with `act` between, and answers with a half of each. Only the first read is torn."""

    def __init__(self, worker: Worker, act: Write, pivot: int) -> None:
        self._worker, self._act, self._pivot = worker, act, pivot
        self._reader = worker.lists
        self.reads = 0

    async def result(self, resource: ResourceClass, filter: Filter, sort: Sort, limit: int, since: Position) -> Result:
        self.reads += 1
        first = await self._reader.result(resource, filter, sort, limit, since)
        if self.reads > 1:
            return first
        await self._act(self._worker)
        second = await self._reader.result(resource, filter, sort, limit, since)
        pivot = first.documents[: self._pivot]
        later = [d for d in second.documents if not pivot or sort_documents([pivot[-1], d], sort)[0] is pivot[-1]]
        return Result([*pivot, *later][:limit], second.read_at)


@pytest.mark.parametrize("pivot", [0, 8, 30])
@pytest.mark.parametrize("act", [*WRITES, everything, drop_top], ids=lambda act: act.__name__)
async def test_write_in_the_middle_of_a_read(
    worker: Worker, act: Write, pivot: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is exact at the read's cluster time all the same, whole or cut by a limit, in any order."""
    monkeypatch.setattr("realtime.snapshots.SPARE_DOCUMENTS", 4)
    for sort, limit in ((BY_ID, 10_000), (worker.sort("title"), 9), (worker.sort("-title"), 9)):
        await seed(worker)
        worker.snapshots._reader = TornReader(worker, act, pivot)
        async with connected(worker) as client:
            client.subscribe(worker.query(PUBLISHED), sort=sort, limit=limit)
            await client.received("ready")
            await enter(worker)
            await client.synced(await worker.caught_up())
            await judge(Scene(worker, client, act, 0, "before"), sort=sort, limit=limit)


async def test_history_too_short_for_the_read(mongodb_url: str, database_name: str) -> None:
    """Changes of the time of the read that history has forgotten already cannot be worked in: it is read again."""

    async def flood(worker: Worker) -> None:
        await everything(worker)
        await worker.caught_up()

    async with working(mongodb_url, database_name, history=History(5, 67_108_864)) as worker:
        await seed(worker)
        reader = worker.snapshots._reader = TornReader(worker, flood, 30)
        async with connected(worker) as client:
            client.subscribe(worker.query(PUBLISHED))
            await client.received("ready")
            assert reader.reads == 2
            await worker.truth(client, "1")
