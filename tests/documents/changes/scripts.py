"""Scripted change streams: events shaped as MongoDB documents them, where the embedded server cannot show them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from bson import Timestamp
from pymongo.errors import AutoReconnect, OperationFailure

from documents.changes import (
    HEARTBEATS,
    Checkpoint,
    Entry,
    ServerEvent,
)
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
