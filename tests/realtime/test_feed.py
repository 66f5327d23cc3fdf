"""The feed over a scripted source: order, a history that goes back, listeners that fail, and waiting."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import pytest

from documents import Beat, Change, ChangeKind, DatabaseAway, Entry, Position, Reset, ResetReason
from realtime import Feed, History
from tests.realtime.worker import PATIENCE

AT = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)


def beat(ts: int, ordinal: int = 1) -> Beat:
    return Beat(Position(ts, ordinal), {}, AT)


def large(ts: int) -> Change:
    return Change(Position(ts, 1), {}, AT, 100_000, ChangeKind.INSERT, "posts", ts, None, {"_id": ts})


def lost(ts: int) -> Reset:
    return Reset(Position(ts, 0), {}, AT, None, ResetReason.HISTORY_LOST)


class Script:
    """A source and heart: batches come when the test sends them, and when the heart is poked."""

    connected = True

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Sequence[Entry]] = asyncio.Queue()
        self.pokes = 0
        self.away = False

    async def batches(self) -> AsyncGenerator[Sequence[Entry], None]:
        while True:
            yield await self.queue.get()

    def send(self, *entries: Entry) -> None:
        self.queue.put_nowait(entries)

    async def poke(self) -> None:
        self.pokes += 1
        if self.away:
            raise DatabaseAway("the database does not answer")


@pytest.fixture
async def script() -> Script:
    return Script()


@pytest.fixture
async def feed(script: Script) -> AsyncIterator[Feed]:
    """A feed that starts after position 10."""
    feed = Feed(script, script, History(1_000, 1_000_000_000))
    await feed.start(Position(10, 1))
    yield feed
    await feed.stop()
    assert not feed.connected


async def passed(feed: Feed, ts: int, ordinal: int = 1) -> None:
    async with asyncio.timeout(PATIENCE):
        await feed.passed(Position(ts, ordinal))


async def test_each_entry_once_and_in_order(feed: Feed, script: Script, caplog: pytest.LogCaptureFixture) -> None:
    """An entry that is not above the head is dropped, loudly."""
    heard: list[Entry] = []
    feed.add_listener(heard.append)
    first, second = beat(11), beat(11, 2)
    script.send(first, second)
    script.send(beat(11), second, beat(12))
    await passed(feed, 12)
    assert heard == [first, second, beat(12)]
    assert caplog.text.count("it is dropped") == 2


async def test_listener_that_fails(feed: Feed, script: Script, caplog: pytest.LogCaptureFixture) -> None:
    """The others still get the entry, and the next one."""
    heard: list[Entry] = []

    def failing(_: Entry) -> None:
        raise RuntimeError("a fault")

    feed.add_listener(failing)
    feed.add_listener(heard.append)
    script.send(beat(11), beat(12))
    await passed(feed, 12)
    assert heard == [beat(11), beat(12)]
    assert "a listener of the feed failed" in caplog.text
    assert not feed.failed.is_set()


async def test_history_that_goes_back(feed: Feed, script: Script) -> None:
    """After a restore time begins earlier: what follows is taken, and positions of the other future are doubtful."""
    script.send(beat(50))
    await passed(feed, 50)
    script.send(lost(20), beat(20), beat(21))
    await passed(feed, 21)
    async with asyncio.timeout(PATIENCE):
        while feed.head != Position(21, 1):  # noqa: ASYNC110 - 50 had passed 21 already
            await asyncio.sleep(0)
    assert feed.forked_at == Position(50, 1)
    assert feed.history.after(Position(15, 1)) is None
    assert feed.history.after(Position(20, 0)) == [beat(20), beat(21)]
    script.send(lost(60), beat(60))
    await passed(feed, 60)
    assert feed.forked_at == Position(50, 1)


async def test_cluster_time_is_passed_when_a_later_one_is_seen(feed: Feed, script: Script) -> None:
    """Until then more changes may come at it; the heartbeat is poked so that one does come."""
    script.away = True
    end = Position(11, 2**32 - 1)
    waiting = asyncio.create_task(feed.passed(end))
    script.send(beat(11), beat(11, 2))
    await passed(feed, 11, 2)
    assert not feed.has_passed(end)
    assert not waiting.done()
    script.send(beat(12))
    async with asyncio.timeout(PATIENCE):
        await waiting
    assert script.pokes >= 1


async def test_large_batch(feed: Feed, script: Script) -> None:
    """Others get their turn between the changes of one batch, and find that all listeners have seen the same."""
    one: list[Entry] = []
    two: list[Entry] = []
    feed.add_listener(one.append)
    feed.add_listener(two.append)
    script.send(*(large(ts) for ts in range(11, 31)))
    seen = set()
    async with asyncio.timeout(PATIENCE):
        while len(one) < 20:
            seen.add(len(one))
            assert one == two
            await asyncio.sleep(0)
    assert len(seen) > 10
