"""The feed's recent past and the outbox: bounds, and what they answer at them."""

from __future__ import annotations

import asyncio
import datetime as dt

from documents import Beat, Change, ChangeKind, Position, Reset, ResetReason
from realtime import History
from realtime.frames import Frame
from realtime.outbox import CONTROL_MARGIN_BYTES, TAKE_BYTES, Outbox

AT = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)


def at(n: int) -> Position:
    return Position(n, 1)


def beat(n: int) -> Beat:
    return Beat(at(n), {}, AT)


def change(n: int, size: int) -> Change:
    return Change(at(n), {}, AT, size, ChangeKind.INSERT, "posts", n, None, {"_id": n})


def reset(n: int, *collections: str) -> Reset:
    return Reset(at(n), {}, AT, frozenset(collections) or None, ResetReason.IMAGE_MISSING)


def positions(history: History, after: int, limit: int | None = None) -> list[int] | None:
    entries = history.after(at(after), limit)
    return None if entries is None else [entry.position.ts for entry in entries]


def test_history_bounded_in_entries() -> None:
    """The oldest entries go, and a reader below the floor is told so instead of being given a part."""
    history = History(3, 1_000_000)
    history.restart(at(10))
    for n in range(11, 17):
        history.append(beat(n))
    assert len(history) == 3
    assert history.floor == at(13)
    assert positions(history, 13) == [14, 15, 16]
    assert positions(history, 14, 1) == [15]
    assert positions(history, 16) == []
    assert positions(history, 99) == []
    assert positions(history, 12) is None
    assert positions(history, 9) is None


def test_history_bounded_in_bytes() -> None:
    """It counts what the entries weigh; one above the bound is kept as long as it is the newest."""
    history = History(100, 1_000)
    for n in range(1, 6):
        history.append(change(n, 400))
    assert (len(history), history.bytes) == (2, 800)
    history.append(change(6, 5_000))
    assert positions(history, 5) == [6]
    assert history.after(at(4)) is None
    history.append(beat(7))
    assert positions(history, 6) == [7]
    assert history.bytes == 200


def test_history_over_many_turns_of_the_ring() -> None:
    """What is dropped is freed, and positions are still found."""
    history = History(100, 1_000_000)
    for n in range(1, 20_001):
        history.append(beat(n))
    assert len(history._entries) < 10_000
    assert positions(history, 19_900) == list(range(19_901, 20_001))
    assert positions(history, 19_899) is None
    history.restart(at(5))
    assert (len(history), history.bytes, history.floor) == (0, 0, at(5))
    assert positions(history, 5) == []


def test_resets_in_the_history() -> None:
    """What leads over a reset of the collection is not covered; another collection's reset does not matter."""
    history = History(4, 1_000_000)
    for entry in (beat(1), reset(2, "posts", "tags"), beat(3), reset(4, "users"), beat(5)):
        history.append(entry)
    assert history.floor == at(1)
    assert not history.covers(at(0), "comments")
    assert not history.covers(at(1), "posts")
    assert history.covers(at(1), "comments")
    assert history.covers(at(2), "posts")
    assert not history.covers(at(3), "users")
    history.append(reset(6))
    assert not history.covers(at(5), "comments")
    assert history.covers(at(6), "comments")
    for n in range(7, 12):
        history.append(beat(n))
    assert not history._resets
    assert history.covers(at(8), "posts")


def frame(size: int, view: str | None = "v", name: str = "update", position: str | None = None) -> Frame:
    return Frame("x" * size, name, view, position)


def test_outbox_at_its_bound() -> None:
    """An event past the bound is refused; one above it goes alone; the connection's own messages have a margin."""
    outbox = Outbox(1_000)
    assert outbox.put(frame(600))
    assert not outbox.put(frame(401))
    assert outbox.put(frame(400))
    assert outbox.put_control(frame(CONTROL_MARGIN_BYTES, None))
    assert not outbox.put_control(frame(1, None))
    assert outbox.bytes == 1_000 + CONTROL_MARGIN_BYTES
    alone = Outbox(1_000)
    assert alone.put(frame(50_000))
    assert not alone.put(frame(1))


async def test_messages_after_a_frame_above_every_bound() -> None:
    """A document larger than bound and margin together is followed by its `ready`, and the margin is still bounded."""
    outbox = Outbox(1_000)
    assert outbox.put(frame(2_000_000))
    assert outbox.put_control(frame(300, name="ready"))
    assert not outbox.put_control(frame(CONTROL_MARGIN_BYTES, None))
    for size in (2_000_000, 300):
        (taken,) = await outbox.take()
        assert taken.size == size
        outbox.sent(size)
    assert outbox.put_control(frame(CONTROL_MARGIN_BYTES, None))
    assert outbox.bytes == CONTROL_MARGIN_BYTES


async def test_frames_count_until_they_are_sent() -> None:
    """What the writer has taken and the socket has not still fills the outbox."""
    outbox = Outbox(1_000)
    outbox.put(frame(900))
    taken = await outbox.take()
    assert [f.size for f in taken] == [900]
    assert not outbox.put(frame(200))
    waiting = asyncio.create_task(outbox.below(0))
    moving = asyncio.create_task(outbox.drained(1_000))
    await asyncio.sleep(0)
    assert not moving.done()  # little enough, but the socket has not moved
    outbox.sent(900)
    await waiting
    await moving
    assert outbox.bytes == 0
    assert outbox.put(frame(200))


async def test_writer_takes_a_little_at_a_time() -> None:
    """So that what waits behind it can still be dropped."""
    outbox = Outbox(10_000_000)
    for _ in range(4):
        outbox.put(frame(TAKE_BYTES // 2))
    assert len(await outbox.take()) == 2
    outbox.put(frame(TAKE_BYTES * 3))
    assert len(await outbox.take()) == 2
    assert [f.size for f in await outbox.take()] == [TAKE_BYTES * 3]


async def test_dropping_a_view() -> None:
    """Its frames go, and whatever vouches for them; everything else stays in its order."""
    outbox = Outbox(10_000)
    kept = [frame(10, None, "subscribed"), frame(10, "w"), frame(10, None, "pong")]
    promised = frame(10, None, "pong", "00")
    for f in (
        kept[0],
        frame(10, "v"),
        kept[1],
        frame(10, None, "position"),
        promised,
        kept[2],
        frame(10, "v", "ready"),
    ):
        outbox.put(f)
    assert outbox.drop_view("v") == [promised]
    assert outbox.bytes == 30
    assert await outbox.take() == kept
