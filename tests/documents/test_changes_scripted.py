"""The tailer on scripted change streams: what the embedded server cannot show, as MongoDB documents it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from bson import Timestamp
from pymongo.errors import AutoReconnect, OperationFailure

from documents.changes import (
    HEARTBEATS,
    Beat,
    Change,
    ChangeKind,
    Checkpoint,
    Entry,
    Reset,
    ResetReason,
    ServerEvent,
)
from documents.errors import HistoryLost
from documents.positions import Position
from documents.tailer import ChangeStream

Token = Mapping[str, Any]
Event = dict[str, Any]
Step = Sequence[Event] | Exception | Callable[[], Awaitable[None]]

AT = dt.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=dt.UTC)
DISCONNECTED = AutoReconnect("connection closed")
START = {"_data": "start"}
POSTS = frozenset({"posts"})
BOTH = frozenset({"posts", "comments"})


def lost(code: int = 286) -> OperationFailure:
    return OperationFailure("the resume point may no longer be in the oplog", code)


class Tokens:
    """Makes each event's token unique, as a server does."""

    count = 0

    @classmethod
    def next(cls) -> dict[str, Any]:
        cls.count += 1
        return {"_data": f"token-{cls.count}"}


def event(operation: str, ts: int, coll: str | None = "posts", **fields: Any) -> Event:
    namespace = {"ns": {"db": "headwater"} | ({"coll": coll} if coll else {})}
    return {"_id": Tokens.next(), "operationType": operation, "clusterTime": Timestamp(ts, 1), "wallTime": AT,
            **namespace, **fields}  # fmt: skip


def insert(ts: int, key: Any, coll: str = "posts") -> Event:
    return event("insert", ts, coll, documentKey={"_id": key}, fullDocument={"_id": key, "n": 0})


def update(ts: int, key: Any, **fields: Any) -> Event:
    fields.setdefault("fullDocumentBeforeChange", {"_id": key, "n": 0})
    fields.setdefault("updateDescription", {"updatedFields": {"n": 1}, "removedFields": [], "truncatedArrays": []})
    return event("update", ts, documentKey={"_id": key}, **fields)


def beat(ts: int) -> Event:
    return event("update", ts, HEARTBEATS, documentKey={"_id": "heartbeat"}, fullDocumentBeforeChange=None)


def fragments(whole: Event, *groups: Sequence[str]) -> list[Event]:
    """The event as $changeStreamSplitLargeEvent cuts it: top-level fields dealt out, each with a token."""
    return [
        {"_id": Tokens.next(), "splitEvent": {"fragment": number, "of": len(groups)}}
        | {name: whole[name] for name in group}
        for number, group in enumerate(groups, 1)
    ]


class End(Exception):
    """The script is over."""


@dataclass
class ScriptedCursor:
    """Plays the steps of one connection: a batch, an error to raise, or something to wait for."""

    steps: list[Step]
    resume_token: Token | None = field(default_factory=lambda: START)
    alive: bool = True
    closed: bool = False

    async def next_batch(self) -> Sequence[ServerEvent]:
        assert not self.closed
        step = self.steps.pop(0) if self.steps else []
        if isinstance(step, Exception):
            raise step
        if not isinstance(step, Sequence):
            await step()
            return []
        if not step and not self.steps:
            # Nothing more: what a quiet server does, without spinning.
            await asyncio.sleep(0.001)
        self.alive = not any(e.get("operationType") == "invalidate" for e in step)
        return [ServerEvent(e, 100) for e in step]

    async def close(self) -> None:
        self.closed = True


class Script:
    """Opens one scripted cursor after the other, and remembers the tokens it was asked to start after."""

    def __init__(self, *connections: list[Step] | Exception) -> None:
        self.connections = list(connections)
        self.tokens: list[Token | None] = []
        self.cursors: list[ScriptedCursor] = []

    async def open(self, token: Token | None) -> ScriptedCursor:
        self.tokens.append(token)
        connection = self.connections.pop(0) if self.connections else []
        if isinstance(connection, Exception):
            raise connection
        self.cursors.append(ScriptedCursor(list(connection)))
        return self.cursors[-1]

    def stream(
        self,
        live: Iterable[str] = ("posts", "comments"),
        checkpoint: Checkpoint | None = None,
        **options: Any,
    ) -> ChangeStream:
        options = {
            "retry_min": dt.timedelta(milliseconds=1),
            "retry_max": dt.timedelta(milliseconds=2),
        } | options
        return ChangeStream(cast(Any, None), set(live), checkpoint, open_cursor=self.open, **options)


async def take(stream: ChangeStream, count: int) -> list[Entry]:
    """The first entries, and proof that nothing more comes."""
    entries: list[Entry] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1), contextlib.aclosing(stream.batches()) as batches:
            async for batch in batches:
                assert batch
                entries += batch
    assert len(entries) == count, entries
    assert [e.position for e in entries] == sorted({e.position for e in entries})
    return entries


def places(entries: Iterable[Entry]) -> list[tuple[int, int]]:
    return [(e.position.ts >> 32, e.position.ordinal) for e in entries]


async def test_changes_of_one_cluster_time_are_counted_across_batches() -> None:
    """The server's batches may cut a transaction anywhere; the count goes on, and starts anew at the next."""
    script = Script([[insert(5, 1), insert(5, 2)], [], [insert(5, 3)], [insert(6, 4)]])
    assert places(await take(script.stream(), 4)) == [(5, 1), (5, 2), (5, 3), (6, 1)]


async def test_one_batch_of_the_server_is_one_batch_of_entries() -> None:
    """Entries are neither held back to fill a batch nor dealt out one by one."""
    script = Script([[insert(5, 1), insert(5, 2)], [insert(6, 3)]])
    async with contextlib.aclosing(script.stream().batches()) as batches:
        assert [len(await anext(batches)), len(await anext(batches))] == [2, 1]


async def test_a_disconnect_inside_a_cluster_time_goes_on_counting() -> None:
    """The last event is read again, to know it again; its successor has the next ordinal."""
    first, second, third = insert(5, 1), insert(5, 2), insert(5, 3)
    script = Script([[first, second], DISCONNECTED], OSError("no route"), [[second, third]])
    stream = script.stream()
    assert places(await take(stream, 3)) == [(5, 1), (5, 2), (5, 3)]
    assert script.tokens == [None, first["_id"], first["_id"]]
    assert stream.reconnects == 2
    assert all(cursor.closed for cursor in script.cursors)


async def test_a_restart_inside_a_cluster_time_finds_the_same_positions() -> None:
    """Position and token of any entry are enough to continue with identical entries."""
    events = [insert(5, 1), insert(5, 2), insert(5, 3), insert(6, 4)]
    whole = await take(Script([events]).stream(), 4)
    for cut in range(1, 4):
        script = Script([events[cut:]])
        assert await take(script.stream(checkpoint=whole[cut - 1].checkpoint), 4 - cut) == whole[cut:]
        assert script.tokens[0] == events[cut - 1]["_id"]


async def test_a_disconnect_before_the_first_event_does_not_lose_it() -> None:
    """A start without a checkpoint is reopened where it began, not from now."""
    script = Script([DISCONNECTED], [[insert(5, 1)]])
    await take(script.stream(), 1)
    assert script.tokens == [None, START]


async def test_events_of_other_collections_count_alike_with_and_without_classes() -> None:
    """Which classes are registered decides what is kept, never a position."""
    noise = [event("create", 5, "other"), insert(5, 1, "other"), insert(5, 2), event("createIndexes", 5),
             insert(5, 3, "comments"), event("modify", 6), insert(6, 4)]  # fmt: skip
    every = await take(Script([noise]).stream(live={"posts", "comments", "other"}), 4)
    one = await take(Script([noise]).stream(live={"posts"}), 2)
    assert places(every) == [(5, 2), (5, 3), (5, 5), (6, 2)]
    assert one == [every[1], every[3]]
    assert await take(Script([noise]).stream(live=()), 0) == []


async def test_each_kind_of_write_gives_its_images() -> None:
    """Insert has no image before, delete none after; an update's is computed from the difference."""
    before = {"_id": 1, "n": 0}
    script = Script([[
        insert(5, 1),
        update(6, 1),
        event("replace", 7, documentKey={"_id": 1}, fullDocument={"_id": 1}, fullDocumentBeforeChange=before),
        event("delete", 8, documentKey={"_id": 1}, fullDocumentBeforeChange=before),
    ]])  # fmt: skip
    entries = await take(script.stream(), 4)
    seen = [(e.kind, e.before, e.after) for e in entries if isinstance(e, Change)]
    assert seen == [
        (ChangeKind.INSERT, None, {"_id": 1, "n": 0}),
        (ChangeKind.UPDATE, before, {"_id": 1, "n": 1}),
        (ChangeKind.REPLACE, before, {"_id": 1}),
        (ChangeKind.DELETE, before, None),
    ]
    assert {e.at for e in entries} == {AT}


async def test_an_update_with_ambiguous_names_and_cut_arrays() -> None:
    """`disambiguatedPaths` and `truncatedArrays` are followed."""
    before = {"_id": 1, "home.town": "Oxford", "places": [{"0": "x"}], "tags": [1, 2, 3]}
    description = {
        "updatedFields": {"home.town": "London", "places.0.0": "y"},
        "removedFields": [],
        "truncatedArrays": [{"field": "tags", "newSize": 1}],
        "disambiguatedPaths": {"home.town": ["home.town"], "places.0.0": ["places", 0, "0"]},
    }
    script = Script([[update(5, 1, fullDocumentBeforeChange=before, updateDescription=description)]])
    (change,) = await take(script.stream(), 1)
    assert isinstance(change, Change)
    assert change.after == {"_id": 1, "home.town": "London", "places": [{"0": "y"}], "tags": [1]}


def large(ts: int) -> Event:
    return update(ts, 1, fullDocumentBeforeChange={"_id": 1, "n": 0, "text": "x" * 1000})


GROUPS = (
    ("operationType", "clusterTime", "wallTime", "ns", "documentKey"),
    ("fullDocumentBeforeChange",),
    ("updateDescription",),
)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
async def test_a_split_event_is_joined_wherever_batches_end(cut: int) -> None:
    """Fragments are one change, with one ordinal, and the last fragment's token goes with it."""
    parts = fragments(large(5), *GROUPS)
    script = Script([[insert(5, 0), *parts[:cut]], [*parts[cut:], insert(5, 2)]])
    entries = await take(script.stream(), 3)
    assert places(entries) == [(5, 1), (5, 2), (5, 3)]
    joined = entries[1]
    assert isinstance(joined, Change)
    assert (joined.token, joined.size) == (parts[-1]["_id"], 300)
    assert joined.after == {"_id": 1, "n": 1, "text": "x" * 1000}


async def test_a_disconnect_between_fragments_reads_the_event_again() -> None:
    """A fragment is no place to resume from: the stream is opened before the whole event."""
    first = insert(5, 0)
    again = fragments(large(5), *GROUPS)
    script = Script([[first, *fragments(large(5), *GROUPS)[:2]], DISCONNECTED], [[first, *again]])
    entries = await take(script.stream(), 2)
    assert script.tokens == [None, START]
    assert (places(entries)[1], entries[1].token) == ((5, 2), again[-1]["_id"])


async def test_a_split_event_with_a_hole_is_read_again() -> None:
    """Fragments out of turn are never joined to something that the server did not send."""
    first, parts = insert(5, 0), fragments(large(5), *GROUPS)
    script = Script([[first, parts[0], parts[2]]], [[first, *parts, insert(6, 1)]])
    assert places(await take(script.stream(), 3)) == [(5, 1), (5, 2), (6, 1)]
    assert script.tokens == [None, START]


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
