"""The change stream, read for ever and in order.

`ChangeStream` turns the server's events into entries with positions, and survives whatever happens to the
connection, the server and its history.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from bson import Timestamp
from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from documents.changes import (
    Checkpoint,
    Entry,
    ImageMissing,
    Reset,
    ResetReason,
    ServerEvent,
    affected_by,
    entry_of,
    wall_time,
)
from documents.errors import HistoryLost
from documents.positions import Position
from documents.streams import Cursor, ServerStreams

logger = logging.getLogger(__name__)

_Identity = tuple[Any, ...]
OpenCursor = Callable[[Mapping[str, Any] | None], Awaitable[Cursor]]

#: InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost; and BSONObjectTooLarge, from servers
#: that cannot split: the stream can never get past that event.
_LOST_CODES: Final = frozenset({260, 280, 286, 10334})

#: A stream that fails so often at one place, with a connection that works, will not get past it.
_STUCK_AFTER: Final = 8

#: Longer without reading, and the cursor is reopened by its token. The embedded server drops history under an
#: open cursor that lags without telling; by token it answers ChangeStreamHistoryLost, as MongoDB does in both
#: cases.
_STALL: Final = dt.timedelta(seconds=10)

#: A reply is due after half a second. Allows for the driver's own search for a server; later, the connection
#: is dead.
_REPLY_TIMEOUT: Final = dt.timedelta(seconds=60)
_REPLY_LATE: Final = dt.timedelta(seconds=3)

#: When a reopened stream has to have sent the last event again. Far more than it takes; then it never will.
_OVERLAP_DUE: Final = dt.timedelta(seconds=5)


#: A change that somebody has been told is committed comes within this. Else the cursor is reopened; and when that has
#: not helped so often, what the token stands for is gone. Together more than the ten seconds for which an idle shard of
#: MongoDB may hold up the stream of its cluster.
_SILENCE: Final = dt.timedelta(seconds=5)
_SILENCES: Final = 3


class MalformedEvent(Exception):
    """An event without a place in the order: the stream cannot go on behind it."""


class HistoryDiverged(Exception):
    """The server no longer has the last event that was read: it lost writes that it had reported."""


class StreamSilent(ConnectionError):
    """The server answers, and does not report what is committed."""


class ChangeStream:
    """Tails one database-level change stream.

    Entries come in commit order, each once, with strictly increasing positions. Ordinals count every event of
    a cluster time, also those of collections that are not live and those that change no document; `live`
    (names of collections) decides only what is kept.

    `checkpoint` is where to continue: any entry's own, since it holds a position and a token that belong
    together. Without one the stream starts now, which is always between two cluster times.

    `committed` tells when the newest change was acknowledged that the stream has to bring, as `time.monotonic` has it;
    None before the first. A stream that brings nothing in spite of it is not waited for: the embedded server has been
    seen to wait for ever behind a token that it lost in a crash.

    One object is one run: iterate `batches()` once.
    """

    def __init__(
        self,
        database: AsyncIOMotorDatabase[Any],
        live: Collection[str],
        checkpoint: Checkpoint | None = None,
        *,
        raise_history_lost: bool = False,
        committed: Callable[[], float | None] = lambda: None,
        open_cursor: OpenCursor | None = None,
        retry_min: dt.timedelta = dt.timedelta(milliseconds=100),
        retry_max: dt.timedelta = dt.timedelta(seconds=5),
        stall: dt.timedelta = _STALL,
        silence: dt.timedelta = _SILENCE,
    ) -> None:
        self._live = frozenset(live)
        self._open_cursor = open_cursor or ServerStreams(database).open
        self._raise_history_lost = raise_history_lost
        self._retry_min, self._retry_max, self._stall = retry_min, retry_max, stall
        self._committed, self._silence = committed, silence

        self._last = checkpoint.position if checkpoint else Position.ZERO
        self._token: Mapping[str, Any] | None = checkpoint.token if checkpoint else None
        #: What is needed to see the last event once more, and to know it again.
        self._before_last: Mapping[str, Any] | None = None
        self._last_seen: _Identity | None = None
        #: Whether the next opening has to; the event that it has to begin with, and by when.
        self._overlap = False
        self._expected: _Identity | None = None
        self._expected_by = 0.0
        self._fragments: list[ServerEvent] = []
        self._reset_due = False
        self._broken: Exception | None = None
        #: Since the last reply; and those since then that the connection does not explain.
        self._failures = 0
        self._failures_here = 0
        self._replied_at = 0.0
        #: When an event or a new cursor came last; since when a committed change is due; how often that was in vain.
        self._brought_at = 0.0
        self._due_since: float | None = None
        self._silences = 0
        self._away = True
        self._logged_at: dict[tuple[str, ResetReason], float] = {}

        #: Counters since the start, for metrics.
        self.events = 0
        self.resets = 0
        self.images_missing = 0
        self.unprocessable = 0
        self.reconnects = 0
        self.histories_lost = 0
        #: How old the newest event was when it was read (the server's clock against ours).
        self.lag: dt.timedelta | None = None
        self.last_error: str | None = None

    @property
    def position(self) -> Position:
        """The last event counted; Position.ZERO before the first one of a start without checkpoint."""
        return self._last

    @property
    def connected(self) -> bool:
        """Whether the server answers. False while it is looked for, and when a reply is overdue."""
        return not self._away and time.time() - self._replied_at < _REPLY_LATE.total_seconds()

    async def batches(self) -> AsyncGenerator[list[Entry], None]:
        """Yield entries as they come, in the batches in which the server sent them; never an empty one.

        Runs until closed or cancelled; use it within `contextlib.aclosing`. A cancellation loses nothing:
        resume from the checkpoint of the last entry that was dealt with.

        Errors of the connection and of single events are dealt with here. Raises only HistoryLost, and that
        only with `raise_history_lost`; otherwise lost history becomes a Reset of everything.
        """
        cursor: Cursor | None = None
        try:
            while True:
                entries: list[Entry] = []
                pause: float | None = None
                try:
                    if cursor is not None and self._must_reopen(cursor):
                        closing, cursor = cursor, None
                        await closing.close()
                    if cursor is None:
                        cursor = await self._open()
                    entries = self._read(await self._next(cursor))
                # The feed never stops: whatever went wrong, it goes on from the last whole event.
                except Exception as error:
                    pause = self._failed(error)
                if pause is not None and cursor is not None:
                    closing, cursor = cursor, None
                    await closing.close()
                if entries:
                    yield entries
                if pause is not None:
                    await asyncio.sleep(pause)
        finally:
            self._away = True
            if cursor is not None:
                await cursor.close()

    async def _open(self) -> Cursor:
        # After an interruption the last event is read again, to prove that the server still has it. The
        # embedded server can lose its last writes in a crash, and then waits for ever, or until another event
        # has grown into the token's place; MongoDB reports only what a majority has, but may have been
        # restored meanwhile.
        overlap = self._overlap and self._last_seen is not None
        cursor = await self._open_cursor(self._before_last if overlap else self._token)
        self._overlap = False
        self._expected = self._last_seen if overlap else None
        self._expected_by = time.time() + _OVERLAP_DUE.total_seconds()
        if self._token is None:
            self._token = cursor.resume_token
            if self._token is None:
                # Events came with the very first reply, so nothing says where this stream begins.
                await cursor.close()
                raise MalformedEvent("the server gave no token to start from")
        # A partly read event is read again from its first fragment: the token is from before it.
        self._fragments.clear()
        self._replied_at = time.time()
        self._brought_at, self._due_since = time.monotonic(), None
        self._away = False
        return cursor

    async def _next(self, cursor: Cursor) -> Sequence[ServerEvent]:
        if self._broken is not None:
            error, self._broken = self._broken, None
            raise error
        async with asyncio.timeout(_REPLY_TIMEOUT.total_seconds()):
            events = await cursor.next_batch()
        self._replied_at = time.time()
        if not events and self._expected is not None and self._replied_at > self._expected_by:
            raise HistoryDiverged("the last event did not come again")
        if not events:
            self._check_silence()
            self._failures = self._failures_here = 0
        return events

    def _check_silence(self) -> None:
        """Raise StreamSilent when a change should have come by now, and HistoryDiverged when it never will."""
        committed = self._committed()
        if self._due_since is None and committed is not None and committed > self._brought_at:
            self._due_since = committed
        if self._due_since is None or time.monotonic() - self._due_since < self._silence.total_seconds():
            return
        self._silences += 1
        if self._silences >= _SILENCES:
            self._silences = 0
            raise HistoryDiverged("what is committed does not come")
        raise StreamSilent("what is committed does not come")

    def _must_reopen(self, cursor: Cursor) -> bool:
        # By the wall clock, which also runs while the machine sleeps. If it is set, one needless reopening
        # follows.
        if abs(time.time() - self._replied_at) > self._stall.total_seconds():
            self._overlap = True
        return self._overlap or not cursor.alive

    def _failed(self, error: Exception) -> float:
        """Decide how to go on after an error; the answer is a pause in seconds."""
        self._failures += 1
        self.reconnects += 1
        self.last_error = f"{type(error).__name__}: {error}"
        if self._failures == 1 or not self._away:
            logger.warning("change stream interrupted at %s: %s", self._last, self.last_error)
        self._away = self._overlap = True
        if not _is_transient(error):
            self._failures_here += 1
        if _is_history_lost(error) or self._failures_here >= _STUCK_AFTER:
            if self._raise_history_lost:
                raise HistoryLost(f"no history after {self._last}") from error
            logger.error("history lost after %s, going on from now: %s", self._last, self.last_error)
            self.histories_lost += 1
            self._failures, self._failures_here = 1, 0
            self._last, self._token, self._reset_due = Position.ZERO, None, True
            self._last_seen = None
        doubled = self._retry_min * 2 ** min(self._failures - 1, 16)
        ceiling: float = min(doubled, self._retry_max).total_seconds()
        # Jitter, so that the workers do not come back all at once; not a secret.
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311

    def _read(self, events: Sequence[ServerEvent]) -> list[Entry]:
        entries: list[Entry] = []
        for event in events:
            try:
                whole = self._join(event)
                if whole is None:
                    continue
                if self._expected is not None:
                    self._recognise(whole)
                    continue
                self._count(whole, entries)
                self._failures = self._failures_here = 0
            except (MalformedEvent, HistoryDiverged) as error:
                # What came before it is delivered first.
                self._broken = error
                break
        return entries

    def _recognise(self, event: ServerEvent) -> None:
        """Skip the last event that was read, or find that the server has another one in its place."""
        if _identity(event) != self._expected:
            raise HistoryDiverged(f"another event in the place of {self._expected}")
        self._expected = None

    def _join(self, event: ServerEvent) -> ServerEvent | None:
        """The whole event, once its last fragment is here.

        A fragment is no place to resume from, so position and token move only with the last one.
        """
        split = event.fields.get("splitEvent")
        if split is None:
            if self._fragments:
                raise MalformedEvent("a split event ended early")
            return event
        number, of = split["fragment"], split["of"]
        if number != len(self._fragments) + 1:
            raise MalformedEvent(f"fragment {number} of {of} after {len(self._fragments)}")
        self._fragments.append(event)
        if number < of:
            return None
        fields: dict[str, Any] = {}
        for fragment in self._fragments:
            fields |= fragment.fields
        del fields["splitEvent"]
        size = sum(fragment.size for fragment in self._fragments)
        fault = next((fragment.fault for fragment in self._fragments if fragment.fault), None)
        self._fragments.clear()
        return ServerEvent(fields, size, fault)

    def _count(self, event: ServerEvent, entries: list[Entry]) -> None:
        """Give the event its position and append what it means."""
        cluster_time, token = event.fields.get("clusterTime"), event.fields.get("_id")
        if not isinstance(cluster_time, Timestamp) or not isinstance(token, Mapping):
            raise MalformedEvent("an event without cluster time or token")
        first = Position.of(cluster_time, 1)
        if first.ts < self._last.ts:
            # Another history under the same name: a database restored from a backup.
            logger.error("cluster time went back from %s to %s", self._last, first)
            self.histories_lost += 1
            self._reset_due = True
        if self._reset_due:
            self._reset_due = False
            self.resets += 1
            before = self._token or token
            at = wall_time(event.fields)
            entries.append(Reset(Position.of(cluster_time, 0), before, at, None, ResetReason.HISTORY_LOST))
        position = Position(first.ts, self._last.ordinal + 1) if first.ts == self._last.ts else first
        self._before_last, self._last_seen = self._token, _identity(event)
        self._last, self._token = position, token
        self._brought_at, self._due_since, self._silences = time.monotonic(), None, 0
        self.events += 1
        self.lag = max(dt.datetime.now(dt.UTC) - wall_time(event.fields), dt.timedelta())
        entry = self._entry_of(event, position, token)
        if entry is not None:
            entries.append(entry)

    def _entry_of(self, event: ServerEvent, position: Position, token: Mapping[str, Any]) -> Entry | None:
        try:
            entry = entry_of(event, position, token, self._live)
        except Exception as error:  # one bad document must not stop everybody's feed
            affected = affected_by(event, self._live)
            if not affected:
                return None
            reason = ResetReason.UNPROCESSABLE
            if isinstance(error, ImageMissing):
                reason = ResetReason.IMAGE_MISSING
                self.images_missing += 1
            else:
                self.unprocessable += 1
            self._log_reset(affected, reason, position, error)
            entry = Reset(position, token, wall_time(event.fields), affected, reason)
        if isinstance(entry, Reset):
            self.resets += 1
        return entry

    def _log_reset(self, affected: frozenset[str], reason: ResetReason, position: Position, error: Exception) -> None:
        names = ", ".join(sorted(affected))
        now = time.monotonic()
        # An update of many documents without images would otherwise fill the log; the counters have them all.
        if now - self._logged_at.get((names, reason), -1.0) >= 1:
            self._logged_at[names, reason] = now
            logger.warning("reset of %s at %s (%s): %r", names, position, reason, error)


def _identity(event: ServerEvent) -> _Identity:
    fields = event.fields
    return fields.get("clusterTime"), fields.get("operationType"), fields.get("ns"), fields.get("documentKey")


def _is_history_lost(error: Exception) -> bool:
    if isinstance(error, HistoryDiverged):
        return True
    return isinstance(error, OperationFailure) and error.code in _LOST_CODES


def _is_transient(error: Exception) -> bool:
    """Whether the connection or a change of primary is at fault, so that trying for ever is right."""
    if isinstance(error, PyMongoError):
        return (
            isinstance(error, ConnectionFailure) or error.timeout or error.has_error_label("ResumableChangeStreamError")
        )
    return isinstance(error, OSError)
