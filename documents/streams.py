"""One open change stream cursor on the server, read in whole batches.

This is the only module that touches the driver's change stream. Motor's own wrapper takes a thread for every
single event; here one hop to a thread brings everything that one getMore returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import bson
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.database import Database
from pymongo.errors import OperationFailure
from pymongo.synchronous.change_stream import ChangeStream

from documents.changes import PIPELINE, SPLIT_STAGE, ServerEvent
from documents.codec import RAW_CODEC, Stored, decode_stored

#: How long the server holds a getMore when there is nothing to report; also about how long closing can take.
MAX_AWAIT = dt.timedelta(milliseconds=500)

#: Bounds what one batch costs the event loop (about 10 µs an event).
BATCH_EVENTS = 500

Decode = Callable[[bytes | memoryview], Stored]

_UNKNOWN_STAGE = 40324
_CLOSE_TIMEOUT = dt.timedelta(seconds=1)

#: What places an event, when its documents cannot be decoded.
_PLACING_FIELDS = ("_id", "operationType", "clusterTime", "wallTime", "ns", "to", "documentKey", "splitEvent")


class Interrupted(ConnectionError):
    """The driver lost its cursor and opened another one by itself."""


class Cursor(Protocol):
    """An open change stream. After a cancelled or failed call it can only be closed."""

    @property
    def resume_token(self) -> Mapping[str, Any] | None:
        """Where the server stands; right after opening, where it starts."""

    @property
    def alive(self) -> bool:
        """False after an invalidate, and once closed."""

    async def next_batch(self) -> Sequence[ServerEvent]:
        """What the server has now; empty when there was nothing for about half a second."""

    async def close(self) -> None:
        """Release the server's cursor. Takes as long as a running call, at most a second."""


class ServerStreams:
    """Opens change stream cursors on one database. `max_await` is how long a quiet getMore lasts.

    `decode` makes a document of BSON. What it raises spoils the one event that holds such a document.
    """

    def __init__(
        self,
        database: AsyncIOMotorDatabase[Any],
        max_await: dt.timedelta = MAX_AWAIT,
        decode: Decode = decode_stored,
    ) -> None:
        self._decode = decode
        self._max_await_ms = int(max_await.total_seconds() * 1000)
        synchronous: Database[Any] = database.delegate
        # Raw, so that one document that Python cannot represent spoils one event and not the server's whole
        # reply.
        self._database: Database[RawBSONDocument] = synchronous.with_options(codec_options=RAW_CODEC)
        self._split = True

    async def open(self, token: Mapping[str, Any] | None) -> Cursor:
        """Open after `token`, or from now. Raises the driver's errors.

        If cancelled, whatever the thread still opens is closed there.
        """
        executor = ThreadPoolExecutor(1, thread_name_prefix="change-stream")
        opening = executor.submit(self._watch, token)
        try:
            stream = await asyncio.wrap_future(opening)
        except BaseException:
            opening.add_done_callback(_close_late)
            executor.shutdown(wait=False)
            raise
        return _ServerCursor(stream, executor, self._decode)

    def _watch(self, token: Mapping[str, Any] | None) -> ChangeStream[RawBSONDocument]:
        if self._split:
            try:
                return self._watch_with([*PIPELINE, SPLIT_STAGE], token)
            except OperationFailure as error:
                if error.code != _UNKNOWN_STAGE:
                    raise
                self._split = False
        return self._watch_with(list(PIPELINE), token)

    def _watch_with(
        self, pipeline: Sequence[Mapping[str, Any]], token: Mapping[str, Any] | None
    ) -> ChangeStream[RawBSONDocument]:
        return self._database.watch(
            pipeline,
            full_document_before_change="whenAvailable",
            show_expanded_events=True,
            # startAfter takes every token that resumeAfter takes, and also that of an invalidate.
            start_after=token,
            max_await_time_ms=self._max_await_ms,
            batch_size=BATCH_EVENTS,
        )


def _close_late(opening: Future[ChangeStream[RawBSONDocument]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        with contextlib.suppress(Exception):
            opening.result().close()


class _ServerCursor:
    """A driver's change stream with a thread of its own, which so runs one call at a time."""

    def __init__(
        self,
        stream: ChangeStream[RawBSONDocument],
        executor: ThreadPoolExecutor,
        decode: Decode,
    ) -> None:
        self._stream = stream
        self._executor = executor
        self._document = decode

    @property
    def resume_token(self) -> Mapping[str, Any] | None:
        token = self._stream.resume_token
        return bson.decode(token.raw) if isinstance(token, RawBSONDocument) else token

    @property
    def alive(self) -> bool:
        return self._stream.alive

    async def next_batch(self) -> Sequence[ServerEvent]:
        return await asyncio.wrap_future(self._executor.submit(self._read))

    async def close(self) -> None:
        # Queued behind a running getMore, which ends within MAX_AWAIT unless the network is gone; then the
        # thread is left to end by itself.
        closing = self._executor.submit(self._close)
        self._executor.shutdown(wait=False)
        await asyncio.wait({asyncio.wrap_future(closing)}, timeout=_CLOSE_TIMEOUT.total_seconds())

    def _close(self) -> None:
        with contextlib.suppress(Exception):
            self._stream.close()

    def _read(self) -> list[ServerEvent]:
        # `_cursor` is private. There is no public way to ask what is left of a batch without waiting for the
        # next one, nor to hear that the driver resumed: `tailer` wants to check that it is still the same
        # history.
        cursor = self._stream._cursor
        first = self._stream.try_next()
        if self._stream._cursor is not cursor:
            raise Interrupted("the connection was lost")
        if first is None:
            return []
        events = [self._decode(first)]
        while cursor._has_next():
            following = self._stream.try_next()
            if following is None:
                break
            events.append(self._decode(following))
        return events

    def _decode(self, raw: RawBSONDocument) -> ServerEvent:
        size = len(raw.raw)
        try:
            return ServerEvent(self._document(raw.raw), size)
        except Exception as fault:
            fields = {name: raw[name] for name in _PLACING_FIELDS if name in raw}
            return ServerEvent(
                {k: bson.decode(v.raw) if isinstance(v, RawBSONDocument) else v for k, v in fields.items()},
                size,
                fault,
            )
