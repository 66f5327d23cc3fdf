"""What happened before this worker's history begins: fetched for clients that were away, or that another worker sent.

It is read from where it is nearest: the shared log, then the database's own (the oplog). What was fetched stays in the
history for a while, so that a crowd of clients that come back at once costs a few reads, and not one each.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, Protocol

from documents import ChangeStream, Checkpoint, Checkpoints, Entry, HistoryLost, Position
from realtime.history import History, entry_size
from realtime.log_redis import LogAway, LogTooShort, RedisLog

logger = logging.getLogger("headwater.recovery")

#: How long fetched entries stay, counted from the last client that asked for such.
KEEP: Final = dt.timedelta(seconds=60)
#: A read that takes longer is given up: a snapshot is the better answer by then.
TIMEOUT: Final = dt.timedelta(seconds=20)
#: What could not be reached is not tried again for so long.
GIVEN_UP: Final = dt.timedelta(seconds=10)


class TooFar(Exception):
    """The past does not reach back so far."""


class Past(Protocol):
    """Somewhere that older entries can be read."""

    def after(self, position: Position) -> AsyncGenerator[Sequence[Entry], None]:
        """Every entry above `position`, in order, in pages. Raises TooFar."""


class LogPast:
    """The past in the shared log."""

    def __init__(self, log: RedisLog) -> None:
        self._log = log

    async def after(self, position: Position) -> AsyncGenerator[Sequence[Entry], None]:
        try:
            present = await self._log.describe()
            if present is None or present.void:
                # A void log may hold a history in which the position means something else.
                raise TooFar
            async with contextlib.aclosing(self._log.after(present.id, position)) as pages:
                async for page in pages:
                    yield [logged.entry for logged in page]
        except (LogAway, LogTooShort) as error:
            raise TooFar from error


class OplogPast:
    """The past in the database, from the checkpoint before it. `open_stream` opens a stream that raises HistoryLost."""

    def __init__(self, checkpoints: Checkpoints, open_stream: Callable[[Checkpoint], ChangeStream]) -> None:
        self._checkpoints = checkpoints
        self._open_stream = open_stream

    async def after(self, position: Position) -> AsyncGenerator[Sequence[Entry], None]:
        checkpoint = await self._checkpoints.at_or_before(position)
        if checkpoint is None:
            raise TooFar
        try:
            async with contextlib.aclosing(self._open_stream(checkpoint).batches()) as batches:
                async for batch in batches:
                    yield [entry for entry in batch if entry.position > position]
        except HistoryLost as error:
            raise TooFar from error


class Recovery:
    """Extends a history backwards on demand, by at most as much as it may hold itself, however often.

    `on_past` hears of every entry that is put in front, before anybody reads it there.
    """

    def __init__(
        self,
        history: History,
        pasts: Sequence[Past],
        on_past: Callable[[Sequence[Entry]], None],
        *,
        max_entries: int,
        max_bytes: int,
    ) -> None:
        self._history = history
        self._pasts = tuple(pasts)
        self._on_past = on_past
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._reading = asyncio.Lock()
        self._unreachable = Position.ZERO
        self._try_again_at = 0.0
        self._release: asyncio.TimerHandle | None = None
        #: Reads of the past since the start, for metrics.
        self.reads = 0

    async def reach(self, position: Position) -> bool:
        """Whether the history now has everything above `position`. Raises DatabaseAway.

        One read runs at a time, and serves all who wait for what it brings.
        """
        async with self._reading:
            loop = asyncio.get_running_loop()
            if position < self._history.floor:
                if position <= self._unreachable and loop.time() < self._try_again_at:
                    return False
                if not await self._fetch(position):
                    self._unreachable = position
                    self._try_again_at = loop.time() + GIVEN_UP.total_seconds()
                    return False
            if self._release is not None:
                self._release.cancel()
            self._release = loop.call_later(KEEP.total_seconds(), self._history.return_lent)
            return True

    def stop(self) -> None:
        """Cancel what is still to be done."""
        if self._release is not None:
            self._release.cancel()

    async def _fetch(self, position: Position) -> bool:
        for past in self._pasts:
            self.reads += 1
            try:
                async with asyncio.timeout(TIMEOUT.total_seconds()):
                    if await self._fetch_from(past, position):
                        return True
            except (TooFar, TimeoutError) as error:
                logger.info("%s does not reach back to %s: %r", type(past).__name__, position, error)
        return False

    async def _fetch_from(self, past: Past, position: Position) -> bool:
        entries: list[Entry] = []
        size = 0
        # What has been fetched for others, and is still there, counts too.
        most, most_bytes = self._max_entries - self._history.lent_entries, self._max_bytes - self._history.lent_bytes
        async with contextlib.aclosing(past.after(position)) as pages:
            async for page in pages:
                for entry in page:
                    # The floor rises while we read. From here to the end of `prepend` there is no await.
                    if entry.position > self._history.floor:
                        return self._prepend(entries, position)
                    entries.append(entry)
                    size += entry_size(entry)
                    # Entry by entry: a page of large ones may hold many times the bound.
                    if len(entries) > most or size > most_bytes:
                        raise TooFar
                if entries and entries[-1].position == self._history.floor:
                    return self._prepend(entries, position)
        return False

    def _prepend(self, entries: list[Entry], position: Position) -> bool:
        self._on_past(entries)
        self._history.prepend(entries, position)
        return True
