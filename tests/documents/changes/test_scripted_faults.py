"""Scripted streams: lost history, drops and renames, and events that cannot be processed."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import time
from typing import Any, cast

import pytest
from pymongo.errors import OperationFailure

from documents.changes import (
    Beat,
    Change,
    Checkpoint,
    Reset,
    ResetReason,
)
from documents.errors import HistoryLost
from documents.positions import Position
from documents.tailer import ChangeStream
from tests.documents.changes.scripts import (
    BOTH,
    DISCONNECTED,
    POSTS,
    START,
    Event,
    Script,
    ScriptedCursor,
    Step,
    Token,
    beat,
    event,
    insert,
    lost,
    places,
    take,
    update,
)


@pytest.mark.parametrize("code", [286, 280, 260, 10334])
async def test_history_lost_when_opening_resets_everything(code: int) -> None:
    """The reset stands at ordinal 0 of the first cluster time seen again, and can be resumed from."""
    old = Checkpoint(Position(3 << 32, 4), {"_data": "old"})
    script = Script(lost(code), [[], [insert(9, 1), insert(9, 2)]])
    stream = script.stream(checkpoint=old)
    reset, *changes = await take(stream, 3)
    assert isinstance(reset, Reset)
    assert (reset.collections, reset.reason, reset.token) == (None, ResetReason.HISTORY_LOST, START)
    assert places([reset, *changes]) == [(9, 0), (9, 1), (9, 2)]
    assert script.tokens == [old.token, None]
    assert stream.histories_lost == 1


async def test_history_lost_while_reading_resets_everything_at_the_next_heartbeat() -> None:
    """A quiet database learns of it from a heartbeat; no document has to change first."""
    script = Script([[insert(5, 1)], lost()], [[beat(9)]])
    entries = await take(script.stream(), 3)
    assert [type(e) for e in entries] == [Change, Reset, Beat]
    assert places(entries) == [(5, 1), (9, 0), (9, 1)]


async def test_history_lost_ends_a_replay_that_asks_for_it() -> None:
    """A replay of older history must not turn into a feed from now."""
    script = Script([[insert(5, 1)], lost()])
    stream = script.stream(checkpoint=Checkpoint(Position(3 << 32, 1), START), raise_history_lost=True)
    batches = stream.batches()
    assert len(await anext(batches)) == 1
    with pytest.raises(HistoryLost):
        await anext(batches)
    assert script.cursors[0].closed


async def test_a_disconnect_after_lost_history_still_resets() -> None:
    """The reset that is due is not forgotten with the connection."""
    script = Script([lost()], [DISCONNECTED], [[insert(9, 1)]])
    assert places(await take(script.stream(), 2)) == [(9, 0), (9, 1)]
    assert script.tokens == [None, None, START]


async def test_a_drop_resets_the_collection_and_no_other() -> None:
    """As MongoDB reports it: the namespace, no document."""
    script = Script([[insert(5, 1), event("drop", 6), event("drop", 7, "other"), insert(8, 2)]])
    _, reset, _ = await take(script.stream(), 3)
    assert isinstance(reset, Reset)
    assert (reset.collections, reset.reason, places([reset])) == (POSTS, ResetReason.DROPPED, [(6, 1)])


@pytest.mark.parametrize(
    ("source", "target", "affected"),
    [("posts", "comments", {"posts", "comments"}), ("posts", "old", {"posts"}), ("new", "posts", {"posts"}),
     ("headwater_new", "posts", {"posts"}), ("new", "old", None)],
)  # fmt: skip
async def test_a_rename_resets_both_names(source: str, target: str, affected: set[str] | None) -> None:
    """As MongoDB reports it with expanded events: `to`, and once more within `operationDescription`."""
    to = {"db": "headwater", "coll": target}
    script = Script([[event("rename", 6, source, to=to, operationDescription={"to": to})]])
    entries = await take(script.stream(), 1 if affected else 0)
    assert [e.collections for e in entries if isinstance(e, Reset)] == ([frozenset(affected)] if affected else [])


async def test_a_dropped_database_resets_all_and_the_stream_goes_on_after_the_invalidate() -> None:
    """MongoDB sends a drop for each collection, dropDatabase and invalidate, then closes the cursor."""
    invalidate = {k: v for k, v in event("invalidate", 7).items() if k != "ns"}
    script = Script([[event("drop", 6), event("dropDatabase", 7, None), invalidate]], [[insert(7, 1), insert(8, 1)]])
    entries = await take(script.stream(), 4)
    assert [e.collections for e in entries if isinstance(e, Reset)] == [POSTS, BOTH]
    assert places(entries) == [(6, 1), (7, 1), (7, 3), (8, 1)]
    assert script.tokens == [None, invalidate["_id"]]


MISSING_IMAGES = {
    "null": update(6, 1, fullDocumentBeforeChange=None),
    "absent": event("delete", 6, documentKey={"_id": 1}),
    "of a replace": event("replace", 6, documentKey={"_id": 1}, fullDocument={"_id": 1}),
}


@pytest.mark.parametrize("case", MISSING_IMAGES)
async def test_a_missing_image_resets_the_collection_and_the_feed_goes_on(case: str) -> None:
    """Never silence: nobody can tell which views the document was in."""
    stream = Script([[insert(5, 1), MISSING_IMAGES[case], insert(7, 2)]]).stream()
    _, reset, after = await take(stream, 3)
    assert isinstance(reset, Reset)
    assert (reset.collections, reset.reason) == (POSTS, ResetReason.IMAGE_MISSING)
    assert (places([reset, after]), stream.images_missing) == ([(6, 1), (7, 1)], 1)


async def test_a_missing_image_of_another_collection_is_nothing() -> None:
    """Only live collections need images."""
    other = event("delete", 6, "other", documentKey={"_id": 1})
    assert places(await take(Script([[other, insert(6, 1)]]).stream(), 1)) == [(6, 2)]


UNPROCESSABLE = {
    "an update that does not fit": update(6, 1, updateDescription={"updatedFields": {"a.b": 1}}),
    "an update without description": {k: v for k, v in update(6, 1).items() if k != "updateDescription"},
    "an insert without document": event("insert", 6, documentKey={"_id": 1}),
    "a null document": event("insert", 6, documentKey={"_id": 1}, fullDocument=None),
    "no key": event("insert", 6, fullDocument={"_id": 1}),
    "no operation": {k: v for k, v in insert(6, 1).items() if k != "operationType"},
}


@pytest.mark.parametrize("case", UNPROCESSABLE)
async def test_an_event_that_cannot_be_processed_resets_its_collection(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and counted, stands at its own position, and the feed goes on."""
    stream = Script([[insert(5, 1), UNPROCESSABLE[case], insert(7, 2)]]).stream()
    with caplog.at_level(logging.WARNING):
        _, reset, after = await take(stream, 3)
    assert isinstance(reset, Reset)
    assert (reset.collections, reset.reason) == (POSTS, ResetReason.UNPROCESSABLE)
    assert (places([reset, after]), stream.unprocessable) == ([(6, 1), (7, 1)], 1)
    assert "reset of posts" in caplog.text


async def test_an_event_that_names_no_collection_resets_all() -> None:
    """What cannot be attributed may concern everybody."""
    (reset,) = await take(Script([[event("insert", 6, None)]]).stream(), 1)
    assert isinstance(reset, Reset)
    assert reset.collections == BOTH


async def test_an_event_without_cluster_time_is_read_again_and_then_given_up() -> None:
    """It has no place in the order: after some attempts everything is reset and the feed goes on from now."""
    first = insert(5, 1)
    broken = {k: v for k, v in insert(6, 1).items() if k != "clusterTime"}
    attempts: list[list[Step] | Exception] = [[[first, broken]] for _ in range(7)]
    script = Script([[first, broken]], *attempts, [[insert(9, 1)]])
    entries = await take(script.stream(), 3)
    assert places(entries) == [(5, 1), (9, 0), (9, 1)]
    assert script.tokens[-1] is None


async def test_a_long_absence_of_the_server_is_no_lost_history() -> None:
    """However often connecting fails, the stream goes on from its token."""
    errors: list[list[Step] | Exception] = [DISCONNECTED] * 12
    errors.append(OperationFailure("interrupted at shutdown", 11600))
    first = insert(5, 1)
    script = Script([[first], DISCONNECTED], *errors, [[first, insert(5, 2)]])
    assert places(await take(script.stream(), 2)) == [(5, 1), (5, 2)]


async def test_a_server_that_lost_reported_writes_resets_everything() -> None:
    """After an interruption another event stands where the last one was: what was reported did not last."""
    script = Script([[insert(5, 1), insert(5, 2)], DISCONNECTED], [[insert(6, 3)]], [[insert(7, 4)]])
    entries = await take(script.stream(), 4)
    assert places(entries) == [(5, 1), (5, 2), (7, 0), (7, 1)]
    assert isinstance(entries[2], Reset)
    assert entries[2].collections is None


async def test_a_server_that_never_sends_the_last_event_again_lost_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token from beyond the end of the server's history would otherwise wait without a word."""
    monkeypatch.setattr("documents.tailer._OVERLAP_DUE", dt.timedelta(milliseconds=10))
    script = Script([[insert(5, 1)], DISCONNECTED], [[] for _ in range(50)], [[insert(7, 4)]])
    assert places(await take(script.stream(), 3)) == [(5, 1), (7, 0), (7, 1)]


async def test_a_cluster_time_that_goes_back_resets_everything() -> None:
    """A database restored from a backup is another history."""
    batch: list[Event] = [insert(9, 1), insert(5, 2)]
    stream = Script([batch]).stream()
    async with contextlib.aclosing(stream.batches()) as batches:
        entries = await anext(batches)
    assert places(entries) == [(9, 1), (5, 0), (5, 1)]
    assert isinstance(entries[1], Reset)
    assert entries[1].collections is None


async def test_after_a_stall_the_stream_is_opened_again_by_its_token() -> None:
    """An open cursor that lagged may have lost history without a word; opening by token tells."""
    first = insert(5, 1)
    script = Script([[first], [insert(6, 99)]], [[first, insert(6, 2)]])
    stream = script.stream(stall=dt.timedelta(milliseconds=20))
    async with contextlib.aclosing(stream.batches()) as batches:
        await anext(batches)
        await asyncio.sleep(0.03)  # the stall itself, not a wait for something
        (change,) = await anext(batches)
    assert isinstance(change, Change)
    assert (change.document_id, script.tokens) == (2, [None, START])


async def test_cancelled_while_waiting_closes_the_cursor() -> None:
    """Nothing stays open on the server, and the cancellation is not swallowed."""
    waiting = asyncio.Event()

    async def wait() -> None:
        waiting.set()
        await asyncio.Event().wait()

    script = Script([wait])
    stream = script.stream()

    async def consume() -> None:
        async with contextlib.aclosing(stream.batches()) as batches:
            async for _ in batches:
                pass

    task = asyncio.create_task(consume())
    await waiting.wait()
    assert stream.connected
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert script.cursors[0].closed
    assert not stream.connected


async def test_a_stream_without_a_starting_token_is_opened_again() -> None:
    """Without the token of its start, a disconnect before the first event could lose that event."""
    script = Script([[insert(5, 1)]], [[insert(6, 2)]])
    opened = script.open

    async def open_first_without_token(token: Token | None) -> ScriptedCursor:
        cursor = await opened(token)
        if len(script.cursors) == 1:
            cursor.resume_token = None
        return cursor

    stream = ChangeStream(cast(Any, None), {"posts"}, open_cursor=open_first_without_token,
                          retry_min=dt.timedelta(milliseconds=1))  # fmt: skip
    assert places(await take(stream, 1)) == [(6, 1)]


SOON = dt.timedelta(milliseconds=10)


async def test_server_that_does_not_report_what_is_committed() -> None:
    """It is asked again, and believed to have lost the place when that does not help: silence is no answer."""
    old = Checkpoint(Position(3 << 32, 4), {"_data": "old"})
    script = Script([], [], [], [[insert(9, 1)]])
    stream = script.stream(checkpoint=old, silence=SOON, committed=time.monotonic)
    reset, change = await take(stream, 2)
    assert isinstance(reset, Reset)
    assert places([reset, change]) == [(9, 0), (9, 1)]
    assert script.tokens[:4] == [old.token, old.token, old.token, None]


async def test_cursor_that_does_not_report_what_is_committed() -> None:
    """Another cursor goes on where it stood, and nobody has to forget anything."""
    first = insert(5, 1)
    script = Script([[first]], [[first, insert(6, 1)]])
    stream = script.stream(silence=SOON, committed=time.monotonic)
    assert places(await take(stream, 2))[:2] == [(5, 1), (6, 1)]
    assert script.tokens[:2] == [None, START]


async def test_quiet_database() -> None:
    """Where nothing was committed since the last event, nothing is due, however long it takes."""
    script = Script([[insert(5, 1)]])
    stream = script.stream(silence=SOON, committed=lambda: 0.0)
    assert len(await take(stream, 1)) == 1
    assert script.tokens == [None]
