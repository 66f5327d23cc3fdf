"""What the relay and its readers make of a history that was lost, from a scripted change stream."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import cast

import pytest

from documents import Beat, ChangeStream, Checkpoint, Entry, Position, Reset, ResetReason
from realtime import LogPast
from realtime.feed_redis import RelayedSource
from realtime.recovery import TooFar
from realtime.relay import Relay
from tests.realtime.relay.nodes import MAX_AGE, Setting
from tests.waiting import until


def beat(ts: int) -> Beat:
    return Beat(Position(ts, 1), {"at": ts}, dt.datetime.now(dt.UTC))


def lost(ts: int) -> Reset:
    return Reset(Position(ts, 0), {"at": ts}, dt.datetime.now(dt.UTC), None, ResetReason.HISTORY_LOST)


class Script:
    """A change stream that brings what the test sends."""

    connected = True

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Sequence[Entry]] = asyncio.Queue()

    def open(self, checkpoint: Checkpoint | None) -> ChangeStream:  # noqa: ARG002 - as it is called
        return cast("ChangeStream", self)

    async def batches(self) -> AsyncGenerator[Sequence[Entry], None]:
        while True:
            yield await self.queue.get()


async def nothing() -> Checkpoint | None:
    return None


class Scripted:
    """A relay and a reader, each with a change stream of its own; the reader follows `collections`."""

    def __init__(self, setting: Setting, *, relayed: frozenset[str] | None = None) -> None:
        self.setting = setting
        self.log, self._reader = setting.log(), setting.log()
        self.relayed, self.direct = Script(), Script()
        self._collections = relayed or setting.collections
        self.source = RelayedSource(self._reader, self.direct.open, setting.collections)
        self.heard: list[Entry] = []
        self.relay = self.start_relay()
        self._reading = asyncio.create_task(self._read())

    def start_relay(self) -> asyncio.Task[None]:
        """Relay what `relayed` brings."""
        relay = Relay(self.log, self.relayed.open, nothing, self._collections, MAX_AGE)
        self.relay = asyncio.create_task(relay.run())
        return self.relay

    async def stop_relay(self) -> None:
        """End it in good order."""
        self.relay.cancel()
        await asyncio.gather(self.relay, return_exceptions=True)

    async def has(self, position: Position) -> None:
        """Wait until the reader is there."""
        await until(lambda: self.heard and self.heard[-1].position == position)

    @property
    def resets(self) -> list[Reset]:
        """What the reader was told to forget."""
        return [entry for entry in self.heard if isinstance(entry, Reset)]

    async def _read(self) -> None:
        async with contextlib.aclosing(self.source.batches()) as batches:
            async for batch in batches:
                self.heard.extend(batch)

    async def stop(self) -> None:
        """End everything."""
        await self.stop_relay()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self.log.close()
        await self._reader.close()


@contextlib.asynccontextmanager
async def scripted(setting: Setting, *, relayed: frozenset[str] | None = None) -> AsyncIterator[Scripted]:
    both = Scripted(setting, relayed=relayed)
    try:
        yield both
    finally:
        await both.stop()


async def test_time_that_begins_earlier(setting: Setting) -> None:
    """Where the database goes back, within a batch too, a new log begins, and readers are told that all is void."""
    async with scripted(setting) as both:
        both.relayed.queue.put_nowait([beat(1_000)])
        await both.has(Position(1_000, 1))
        before = await both.log.describe()
        both.relayed.queue.put_nowait([beat(1_001), lost(500), beat(501)])
        await both.has(Position(501, 1))
        after = await both.log.describe()
        assert before is not None
        assert after is not None
        assert (before.void, after.void) == (False, True)
        assert after.id != before.id
        assert await both.log.last(before.id) is None
        first, last = await both.log.first(after.id), await both.log.last(after.id)
        assert first is not None
        assert last is not None
        assert isinstance(first.entry, Reset)
        assert (first.entry.position, first.previous) == (Position(500, 0), Position(500, 0))
        assert (last.entry.position, last.previous) == (Position(501, 1), Position(500, 0))
        assert [(reset.collections, reset.reason) for reset in both.resets] == [(None, ResetReason.HISTORY_LOST)]
        # What a position meant before is not to be had from a log that began anew.
        with pytest.raises(TooFar):
            await anext(LogPast(both.log).after(Position(500, 0)))
        # From there on each follows the one before, as ever.
        both.relayed.queue.put_nowait([beat(502), beat(503)])
        await both.has(Position(503, 1))
        assert [entry.position.ts for entry in both.heard[-2:]] == [502, 503]


async def test_reader_that_has_lost_history_alone(setting: Setting) -> None:
    """A log that knows nothing of the loss continues nothing: whoever returns to it is told again to forget."""
    async with scripted(setting) as both:
        both.relayed.queue.put_nowait([beat(1_000), beat(1_001)])
        await until(lambda: both.heard)
        await both.stop_relay()
        await until(lambda: both.source.direct)
        both.direct.queue.put_nowait([lost(700), beat(701)])
        await both.has(Position(701, 1))
        both.start_relay()
        both.relayed.queue.put_nowait([beat(1_002)])
        await both.has(Position(1_002, 1))
        assert [reset.position.ts for reset in both.resets] == [700, 1_002]
        assert [entry.position.ts for entry in both.heard[both.heard.index(both.resets[0]) :]] == [700, 701, 1_002]


async def test_relay_of_fewer_collections(setting: Setting) -> None:
    """A worker that serves a class which the relay does not know of reads for itself."""
    async with scripted(setting, relayed=frozenset({"posts"})) as both:
        both.relayed.queue.put_nowait([beat(1_000)])
        both.direct.queue.put_nowait([beat(900)])
        await both.has(Position(900, 1))
        both.relayed.queue.put_nowait([beat(1_001)])
        both.direct.queue.put_nowait([beat(901)])
        await both.has(Position(901, 1))
        assert both.source.direct
        assert [entry.position.ts for entry in both.heard] == [900, 901]
