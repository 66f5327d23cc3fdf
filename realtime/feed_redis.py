"""A worker's source of entries: the shared log while there is one that moves, else the change stream itself.

Positions are the same in both, so changing from one to the other loses and repeats nothing: each goes on behind the
last entry that was passed on, and drops what is not above it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import math
import random
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from documents import ChangeStream, Checkpoint, Entry, Logged, Position, Reset, ResetReason
from realtime.log_redis import Head, LogAway, LogDescription, LogTooShort, Message, Messages, RedisLog
from realtime.relay import OpenStream

logger = logging.getLogger("headwater.feed")

#: The relay speaks twice a second. After this the worker does not rely on it any more.
SILENCE: Final = dt.timedelta(milliseconds=2_500)
RETRY_MIN: Final = dt.timedelta(milliseconds=200)
RETRY_MAX: Final = dt.timedelta(seconds=5)


class _Silent(Exception):
    """No relay has spoken for SILENCE."""


class RelayedSource:
    """Entries from the shared log, or directly while Redis or the relay is away.

    `checkpoint` is where to continue; without one the source begins with the newest entry. One object is one run.
    """

    def __init__(
        self,
        log: RedisLog,
        open_stream: OpenStream,
        collections: frozenset[str],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._log = log
        self._open_stream = open_stream
        self._collections = collections
        self._last = checkpoint
        #: The log that was followed last: what `_last` was read from is part of the same history.
        self._joined: str | None = None
        #: Since when it is followed, by the loop's clock; infinite while nobody could be listened to.
        self._joined_at = math.inf
        #: Whether this worker has found by itself that history was lost. A log may not know of it yet.
        self._void = False
        self._stream: ChangeStream | None = None
        self._relay_connected = False
        #: Counters since the start, for metrics.
        self.gaps = 0
        self.switches = 0

    @property
    def direct(self) -> bool:
        """Whether this worker reads the change stream itself."""
        return self._stream is not None

    @property
    def connected(self) -> bool:
        """Whether changes come in: the relay says so, or the worker's own stream does."""
        return self._stream.connected if self._stream is not None else self._relay_connected

    async def batches(self) -> AsyncGenerator[Sequence[Entry], None]:
        """Yield entries as they come, in order. Runs until closed; a cancellation loses nothing."""
        clock = asyncio.get_running_loop().time
        while True:
            self._joined_at = math.inf
            try:
                async with contextlib.aclosing(self._follow()) as followed:
                    async for batch in followed:
                        self._last = batch[-1].checkpoint
                        yield batch
            except LogAway as error:
                if clock() - self._joined_at > SILENCE.total_seconds():
                    # One broken connection is mended by another one, which finds in the log what it has missed.
                    logger.info("listening to the relay again: %s", error)
                    continue
                logger.warning("reading the database's changes directly: %s", error)
            except (LogTooShort, _Silent) as error:
                logger.warning("reading the database's changes directly: %s", error)
            except Exception:
                # What Redis holds may be anybody's. The database is still there, and to end here would be for good.
                logger.exception("the log cannot be followed; reading the database's changes directly")
            finally:
                self._relay_connected = False
            self.switches += 1
            async with contextlib.aclosing(self._tail()) as tailed:
                async for batch in tailed:
                    self._last = batch[-1].checkpoint
                    self._void = self._void or any(isinstance(e, Reset) and e.collections is None for e in batch)
                    yield batch
            logger.info("following the relay again")

    async def _follow(self) -> AsyncGenerator[Sequence[Entry], None]:
        """Entries from the log. Raises LogAway, LogTooShort and _Silent when it cannot go on."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(SILENCE.total_seconds()):
                    messages = await stack.enter_async_context(self._log.listen())
            except TimeoutError:
                raise LogAway("nobody says in time where Redis is, or it does not answer") from None
            log = await self._joinable(messages)
            self._joined_at = asyncio.get_running_loop().time()
            async for batch in self._catch_up(log):
                yield batch
            while True:
                # Counted from here: however long the last batch took those who got it, more may wait to be read.
                message = await messages.next(SILENCE.total_seconds())
                if message is None:
                    raise _Silent("no relay speaks")
                if _log_of(message) != log.id:
                    log = await self._joinable(messages, message)
                    async for batch in self._catch_up(log):
                        yield batch
                elif isinstance(message, Head):
                    self._relay_connected = message.connected
                    if self._is_behind(message.position):
                        self.gaps += 1
                        async for batch in self._catch_up(log):
                            yield batch
                elif self._is_behind(message[0].previous):
                    self.gaps += 1
                    async for batch in self._catch_up(log):
                        yield batch
                elif new := self._above(message):
                    yield new

    async def _joinable(self, messages: Messages, heard: Message | None = None) -> LogDescription:
        """The present log, once its relay has spoken."""
        deadline = asyncio.get_running_loop().time() + SILENCE.total_seconds()
        while True:
            log = await self._log.describe()
            if log is not None and heard is not None and _log_of(heard) == log.id:
                break
            left = deadline - asyncio.get_running_loop().time()
            heard = await messages.next(left) if left > 0 else None
            if heard is None:
                raise _Silent("no relay speaks")
        if not log.collections >= self._collections:
            raise LogTooShort("the relay follows fewer collections than this worker serves")
        if isinstance(heard, Head):
            self._relay_connected = heard.connected
        return log

    async def _catch_up(self, log: LogDescription) -> AsyncGenerator[Sequence[Entry], None]:
        """What the log has above the last entry; the beginning, for a source that has none."""
        unfamiliar, self._joined = self._joined != log.id, log.id
        end = await self._log.last(log.id)
        if end is None:
            raise LogTooShort("the log is gone")
        if self._last is None:
            yield [end.entry]
            return
        if self._void or (unfamiliar and log.void):
            self._void = False
            # What is known may be of a history that the database has left. The end is as good a place as any.
            entry = end.entry
            yield [Reset(entry.position, entry.token, entry.at, None, ResetReason.HISTORY_LOST)]
            return
        async for page in self._log.after(log.id, self._last.position):
            if new := self._above(page):
                yield new

    def _above(self, logged: Sequence[Logged]) -> list[Entry]:
        last = Position.ZERO if self._last is None else self._last.position
        return [each.entry for each in logged if each.entry.position > last]

    def _is_behind(self, position: Position) -> bool:
        return self._last is None or position > self._last.position

    async def _tail(self) -> AsyncGenerator[Sequence[Entry], None]:
        """Entries from the change stream, until a relay speaks whose log goes on from where this worker is."""
        stream = self._stream = self._open_stream(self._last)
        relay = asyncio.create_task(self._relay_is_back(), name="watch for a relay")
        try:
            async with contextlib.aclosing(stream.batches()) as batches:
                while True:
                    reading = asyncio.ensure_future(anext(batches))
                    try:
                        await asyncio.wait((reading, relay), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        if not reading.done():
                            # Loses nothing: whoever reads next goes on behind `_last`.
                            reading.cancel()
                            await asyncio.gather(reading, return_exceptions=True)
                    if not reading.cancelled():
                        yield reading.result()
                    if relay.done():
                        relay.result()
                        return
        finally:
            self._stream = None
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)

    async def _relay_is_back(self) -> None:
        """Return when a log that covers this worker's position is being written."""
        pause = RETRY_MIN.total_seconds()
        while True:
            try:
                async with self._log.listen() as messages:
                    log = await self._joinable(messages)
                    if (
                        self._last is None
                        or self._void
                        or log.void
                        or await self._log.covers(log.id, self._last.position)
                    ):
                        return
            except (LogAway, LogTooShort, _Silent):
                pass
            except Exception:
                # As above: changes come in meanwhile, and to end here would end the feed.
                logger.exception("the log cannot be looked at")
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(2 * pause, RETRY_MAX.total_seconds())


def _log_of(message: Message) -> str:
    return message.log if isinstance(message, Head) else message[0].log
