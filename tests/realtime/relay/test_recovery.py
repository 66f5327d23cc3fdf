"""What happened before a worker's history begins, for clients that were away: from the log, then from the oplog."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from documents import Beat, ChangeStream, Checkpoint, Entry, Position
from realtime import History, LogPast, OplogPast, Recovery
from tests.realtime.relay.nodes import Node, Setting, nodes, watching
from tests.waiting import until

PLENTY = 10_000_000


class Returning:
    """A worker's history of its last `kept` entries, and its way to reach back."""

    def __init__(self, setting: Setting, node: Node, kept: int, *, max_entries: int = 10_000) -> None:
        self.entries = list(node.entries)
        self.history = History(max_entries, PLENTY)
        self.history.restart(self.entries[-kept - 1].position)
        for entry in self.entries[-kept:]:
            self.history.append(entry)
        self.heard: list[Entry] = []

        def open_past(checkpoint: Checkpoint) -> ChangeStream:
            return ChangeStream(setting.database.raw, setting.collections, checkpoint, raise_history_lost=True)

        self.recovery = Recovery(
            self.history,
            [LogPast(node.log), OplogPast(setting.checkpoints, open_past)],
            self._on_past,
            max_entries=max_entries,
            max_bytes=PLENTY,
        )

    def _on_past(self, entries: Sequence[Entry]) -> None:
        self.heard += entries

    def after(self, number: int) -> list[Position]:
        """The positions that a client gets who has the `number`-th entry."""
        found = self.history.after(self.entries[number].position)
        assert found is not None
        return [entry.position for entry in found]

    def due(self, number: int) -> list[Position]:
        """The positions that it must get."""
        return [entry.position for entry in self.entries[number + 1 :]]


@contextlib.asynccontextmanager
async def returning(setting: Setting, *, logged: int, max_entries: int = 10_000) -> AsyncIterator[Returning]:
    """After 60 changes, of which the log still has about `logged` and the worker five."""
    with watching(setting) as truth:
        async with nodes(setting, 1, max_entries=logged) as (node,):
            await setting.checkpoints.save(node.entries[-1].checkpoint)
            await setting.write(60)
            await truth.agrees(node)
            worker = Returning(setting, node, 5, max_entries=max_entries)
            try:
                yield worker
            finally:
                worker.recovery.stop()


async def test_position_behind_the_history(setting: Setting) -> None:
    """What the log still has comes from there, in one read, and everybody who must hear of it does."""
    async with returning(setting, logged=10_000) as worker:
        assert worker.history.after(worker.entries[10].position) is None
        assert await worker.recovery.reach(worker.entries[10].position)
        assert worker.after(10) == worker.due(10)
        assert [entry.position for entry in worker.heard] == worker.due(10)[:-5]
        assert worker.recovery.reads == 1
        # What was fetched serves whoever was away for a shorter time.
        assert await worker.recovery.reach(worker.entries[30].position)
        assert worker.after(30) == worker.due(30)
        assert worker.recovery.reads == 1


async def test_what_was_fetched_is_given_up(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some time after the last client has come back the history holds no more than it may, from the next entry on."""
    monkeypatch.setattr("realtime.recovery.KEEP", dt.timedelta(milliseconds=50))
    async with returning(setting, logged=10_000, max_entries=30) as worker:
        number = len(worker.entries) - 34
        assert await worker.recovery.reach(worker.entries[number].position)
        assert worker.after(number) == worker.due(number)
        assert len(worker.history) > 30
        later = itertools.count((worker.entries[-1].position.ts >> 32) + 1)

        def is_within_bounds() -> bool:
            at = dt.datetime.now(dt.UTC)
            worker.history.append(Beat(Position(next(later) << 32, 1), {}, at))
            return len(worker.history) <= 30

        await until(is_within_bounds)


async def test_position_behind_the_log(setting: Setting) -> None:
    """What the log has no longer comes from the oplog, and is the same."""
    async with returning(setting, logged=10) as worker:
        assert await worker.recovery.reach(worker.entries[3].position)
        assert worker.after(3) == worker.due(3)
        assert worker.recovery.reads == 2


async def test_position_before_all_checkpoints(setting: Setting) -> None:
    """What cannot be reached is refused, and not looked for again for each client that asks."""
    async with returning(setting, logged=10) as worker:
        await setting.checkpoints._collection.delete_many({})
        assert not await worker.recovery.reach(worker.entries[3].position)
        assert worker.recovery.reads == 2
        assert not any(await asyncio.gather(*(worker.recovery.reach(worker.entries[2].position) for _ in range(50))))
        assert worker.recovery.reads == 2
        assert worker.history.after(worker.entries[3].position) is None


async def test_more_than_may_be_fetched(setting: Setting) -> None:
    """What exceeds the history's own bound is refused, and nothing of it is kept."""
    async with returning(setting, logged=10_000, max_entries=20) as worker:
        floor = worker.history.floor
        assert not await worker.recovery.reach(worker.entries[3].position)
        assert (worker.history.floor, worker.heard) == (floor, [])


async def test_more_than_may_be_fetched_in_steps(setting: Setting) -> None:
    """Those who come back one by one, each from farther away, together get no more than the bound."""
    async with returning(setting, logged=10_000, max_entries=40) as worker:
        near, far = worker.entries[-36].position, worker.entries[-56].position
        assert await worker.recovery.reach(near)
        heard = list(worker.heard)
        assert len(heard) == 30
        assert not await worker.recovery.reach(far)
        assert (worker.history.floor, worker.heard) == (near, heard)


async def test_crowd_that_comes_back_at_once(setting: Setting) -> None:
    """Thousands of clients at different positions cost a few reads, and each gets exactly what it lacks."""
    async with returning(setting, logged=10_000) as worker:
        chance = random.Random(7)  # noqa: S311 - a test must be repeatable
        numbers = [chance.randrange(len(worker.entries)) for _ in range(5_000)]
        reached = await asyncio.gather(*(worker.recovery.reach(worker.entries[n].position) for n in numbers))
        assert all(reached)
        assert all(worker.after(n) == worker.due(n) for n in set(numbers))
        assert worker.recovery.reads < 15
