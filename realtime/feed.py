"""The feed: every entry of the change stream, once and in order, as this worker has it.

There is one feed per worker. Its source is the change stream itself; a source that reads a relayed log has the same
interface, because positions are the same wherever they come from.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from documents import Change, DocumentsError, Entry, Position, Reset
from realtime.history import History

logger = logging.getLogger("headwater.feed")

#: How long to wait for a poked heartbeat before poking again: the first may have been lost with a connection.
POKE_AGAIN = dt.timedelta(seconds=1)
#: Listeners may hold the event loop this long before other tasks get a turn. A batch can be hundreds of changes.
TURN = dt.timedelta(milliseconds=5)
TURN_BYTES = 32 * 1024

Listener = Callable[[Entry], None]


class Source(Protocol):
    """Where entries come from: in order of position, without duplicates, in batches as they arrive."""

    @property
    def connected(self) -> bool:
        """Whether the source answers at the moment."""

    def batches(self) -> AsyncGenerator[Sequence[Entry], None]:
        """Entries from where the source was told to start; runs until it is closed."""


class Heart(Protocol):
    """Makes the feed move on a quiet database."""

    async def poke(self) -> None:
        """Return when a heartbeat that was sent after this call has been committed."""


class Feed:
    """Distributes entries to listeners and keeps the recent ones.

    Listeners are called synchronously, in the order they were added, entry by entry, from one task: when `passed`
    returns, every listener has seen everything up to that position. A listener must not block and must not raise; one
    that raises is logged, and the others still get the entry.
    """

    def __init__(self, source: Source, heart: Heart, history: History) -> None:
        self.history = history
        self.head = Position.ZERO
        #: Positions up to here may belong to a history that the database has left (it was restored to an older state).
        self.forked_at = Position.ZERO
        #: Set when the feed has died of an error that the source does not deal with: no change will come any more.
        self.failed = asyncio.Event()
        #: Entries since the start, and how long after its commit the last one came, by the two machines' clocks.
        self.entries = 0
        self.delay_seconds = 0.0
        self._heard_at = time.monotonic()
        self._source = source
        self._heart = heart
        self._listeners: list[Listener] = []
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether changes are coming in at the moment."""
        return self._task is not None and not self._task.done() and self._source.connected

    @property
    def silence(self) -> dt.timedelta:
        """How long ago the last entry came."""
        return dt.timedelta(seconds=time.monotonic() - self._heard_at)

    def add_listener(self, listener: Listener) -> None:
        """Call `listener` for every entry from now on."""
        self._listeners.append(listener)

    async def start(self, floor: Position | None) -> None:
        """Begin to read the source; returns when the feed has a position.

        `floor` is the position that the source starts after, None when it starts in the present.
        """
        if floor is not None:
            self.head = floor
            self.history.restart(floor)
        self._task = asyncio.create_task(self._run(), name="feed")
        if floor is None:
            await self.passed(Position.ZERO)

    async def stop(self) -> None:
        """Stop reading. The history stays readable."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        batches = self._source.batches()
        clock = asyncio.get_running_loop().time
        try:
            async for batch in batches:
                self.entries += len(batch)
                self.delay_seconds, self._heard_at = time.time() - batch[-1].at.timestamp(), time.monotonic()
                turn_ends, size = clock() + TURN.total_seconds(), 0
                for entry in batch:
                    self._accept(entry)
                    size += entry.size if isinstance(entry, Change) else 0
                    if size > TURN_BYTES or clock() > turn_ends:
                        # Between two entries everybody has seen the same ones, so others may run: above all the
                        # sockets' writers, or one large batch would fill the outbox of a client that reads fast.
                        await asyncio.sleep(0)
                        turn_ends, size = clock() + TURN.total_seconds(), 0
                self._wake_waiters()
        except Exception:
            # Some entries may be lost, so there is no going on. Those who listen are told (`failed`).
            logger.critical("the feed has ended at %s", self.head, exc_info=True)
            self.failed.set()
        finally:
            await batches.aclose()

    def _wake_waiters(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _accept(self, entry: Entry) -> None:
        if isinstance(entry, Reset) and entry.collections is None:
            # History was lost, or the database was exchanged for an older state of itself, where time begins earlier.
            if entry.position < self.head:
                self.forked_at = max(self.forked_at, self.head)
            self.history.restart(entry.position)
        elif entry.position <= self.head:
            logger.error("an entry at %s came after %s; it is dropped", entry.position, self.head)
            return
        if self.head == Position.ZERO:
            # Started in the present: nothing before the first entry is known.
            self.history.restart(entry.position)
        self.head = entry.position
        self.history.append(entry)
        for listener in self._listeners:
            try:
                listener(entry)
            except Exception:
                logger.exception("a listener of the feed failed on the entry at %s", entry.position)

    def has_passed(self, position: Position) -> bool:
        """Whether all changes up to `position` have been given to the listeners.

        Only a change at a later cluster time proves that no more come at this one.
        """
        return self.head.ts > position.ts or self.head >= position

    async def passed(self, position: Position) -> None:
        """Wait until `has_passed(position)`. Pokes the heartbeat, so a quiet database does not make anybody wait.

        Waits as long as the database is away; cancel it to give up.
        """
        if self.head > Position.ZERO and self.has_passed(position):
            return
        poking = asyncio.create_task(self._keep_poking(), name="poke")
        try:
            while not (self.head > Position.ZERO and self.has_passed(position)):
                await self._moved.wait()
        finally:
            poking.cancel()
            await asyncio.gather(poking, return_exceptions=True)

    async def _keep_poking(self) -> None:
        while True:
            try:
                await self._heart.poke()
            except DocumentsError as error:
                logger.info("the heartbeat could not be written: %s", error)
            await asyncio.sleep(POKE_AGAIN.total_seconds())
