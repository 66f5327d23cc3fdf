"""The relay: whichever worker holds the lease reads the change stream and writes the shared log.

The lease only keeps others from trying. What makes two relays at once harmless is the log itself: an append names the
position that the log must end at. A relay that was stopped for a while and wakes up is refused, and yields.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from redis.asyncio.lock import Lock
from redis.exceptions import LockError

from documents import ChangeStream, Checkpoint, DocumentsError, Entry, Position, Reset
from realtime.log_redis import HEAD_INTERVAL, Head, LogAway, LogDescription, LogMoved, LogTooShort, RedisLog, away

logger = logging.getLogger("headwater.relay")

#: A relay that dies is followed by another one after this and a half CANDIDACY at most.
LEASE: Final = dt.timedelta(milliseconds=1_500)
RENEWAL: Final = dt.timedelta(milliseconds=400)
CANDIDACY: Final = dt.timedelta(milliseconds=300)
#: Whose terms end as they begin (Redis gives the lease, and refuses the log) tries ever more slowly, and no more slowly
#: than this: when the fault is over, nobody may wait for long for a relay.
CANDIDACY_MAX: Final = dt.timedelta(seconds=2)
#: A relay that does not hear the database for so long lets another one try.
DEAF_AFTER: Final = dt.timedelta(seconds=3)

OpenStream = Callable[[Checkpoint | None], ChangeStream]


class Relay:
    """Contends for the lease, and relays while it holds it. One task, `run`, which the lifespan owns.

    `open_stream` opens the change stream behind a checkpoint (None: now); `stored` is the newest checkpoint in the
    database that is not too old; `collections` are those that the stream follows; `max_age` is how old the log's end
    may be to be continued.
    """

    def __init__(
        self,
        log: RedisLog,
        open_stream: OpenStream,
        stored: Callable[[], Awaitable[Checkpoint | None]],
        collections: frozenset[str],
        max_age: dt.timedelta,
    ) -> None:
        self._log = log
        self._open_stream = open_stream
        self._stored = stored
        self._collections = collections
        self._max_age = max_age
        self.leading = False
        #: How often this worker became the relay, for metrics.
        self.terms = 0

    async def run(self) -> None:
        """Work until cancelled; then the lease is given back, so that another worker follows at once."""
        clock = asyncio.get_running_loop().time
        said: str | None = None
        pause = CANDIDACY
        while True:
            began, terms = clock(), self.terms
            fault: str | None = None
            try:
                lock = Lock(self._log.redis, self._log.lease, timeout=LEASE.total_seconds(), thread_local=False)
                with away():
                    acquired = await lock.acquire(blocking=False)
                if acquired:
                    await self._term(lock)
                else:
                    said, pause = None, CANDIDACY
            except LogAway as error:
                fault = f"Redis is away: {error}"
            except (LogMoved, DocumentsError) as error:
                fault = f"this worker's term as the relay ended: {error}"
            except Exception:
                # Whatever it is, another worker or the next term may succeed; no relay at all would be worse.
                logger.exception("this worker's term as the relay ended")
            was_relay = self.terms > terms
            if was_relay and clock() - began > LEASE.total_seconds():
                said, pause = None, CANDIDACY
            if fault is not None and fault != said:
                logger.warning("%s", fault)
                said = fault
            # Jitter, so that the candidates do not come all at once; not a secret.
            await asyncio.sleep(pause.total_seconds() * random.uniform(0.5, 1.0))  # noqa: S311
            if was_relay:
                pause = min(2 * pause, CANDIDACY_MAX)

    async def _term(self, lock: Lock) -> None:
        self.terms += 1
        self.leading = True
        logger.info("this worker is the relay")
        work = (self._relay(), _renew(lock))
        tasks = [asyncio.create_task(each, name="relay") for each in work]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.leading = False
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            releasing = asyncio.create_task(lock.release())
            # Nobody waits for it any more when the connection is closed under it.
            releasing.add_done_callback(lambda task: task.cancelled() or task.exception())
            with contextlib.suppress(LogAway), away():
                # Shielded: a cancellation is just when another worker should follow at once.
                await asyncio.shield(releasing)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _relay(self) -> None:
        """Write what the change stream brings behind the log's end, until something is wrong."""
        writer = _Writer(self._log, self._collections)
        checkpoint = await writer.open(self._max_age) or await self._stored()
        writer.last = None if checkpoint is None else checkpoint.position
        stream = self._open_stream(checkpoint)
        announcing = asyncio.create_task(self._announce(stream, writer), name="head")
        writing = asyncio.create_task(_write(stream, writer), name="log")
        try:
            await asyncio.wait((announcing, writing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            announcing.cancel()
            writing.cancel()
            results = await asyncio.gather(announcing, writing, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _announce(self, stream: ChangeStream, writer: _Writer) -> None:
        """Say where the log ends, until the database has been silent for too long."""
        clock = asyncio.get_running_loop().time
        heard_at = clock()
        while True:
            if stream.connected:
                heard_at = clock()
            elif clock() - heard_at > DEAF_AFTER.total_seconds():
                raise LogMoved("the database does not answer this worker")
            # Not before it has written: whoever hears the relay relies on it, and Redis may refuse what it writes.
            if (head := writer.head) is not None:
                await self._log.announce(Head(*head, stream.connected))
            await asyncio.sleep(HEAD_INTERVAL.total_seconds())


class _Writer:
    """One term's knowledge of the log: which it is, and where it ends."""

    def __init__(self, log: RedisLog, collections: frozenset[str]) -> None:
        self._log = log
        self._collections = collections
        self._description: LogDescription | None = None
        self._continues = False
        self._has_written = False
        #: What precedes the next entry; None when nothing is known of it.
        self.last: Position | None = None

    @property
    def head(self) -> tuple[str, Position] | None:
        """The log and its end; None before this term has written to it."""
        if self._description is None or self.last is None or not self._has_written:
            return None
        return self._description.id, self.last

    async def open(self, max_age: dt.timedelta) -> Checkpoint | None:
        """Where the log ends; None when there is none, or none that is worth continuing."""
        self._description = await self._log.describe()
        try:
            end = None if self._description is None else await self._log.last(self._description.id)
        except LogTooShort as error:
            logger.warning("the log cannot be continued: %s", error)
            end = None
        if self._description is None or end is None or dt.datetime.now(dt.UTC) - end.entry.at > max_age:
            return None
        # A log of other collections lacks changes, or has too many, for those who join it later.
        self._continues = self._description.collections == self._collections
        return end.entry.checkpoint

    async def write(self, entries: Sequence[Entry]) -> None:
        """Append a batch; raises LogMoved and LogAway."""
        for stretch in _stretches(entries):
            first = stretch[0]
            # After lost history time may begin earlier; and whoever followed the old log must hear of it for sure.
            void = _is_void(first)
            if not self._continues or self._description is None or self.last is None or void:
                previous = first.position if self.last is None or void else self.last
                self._description = await self._log.begin(self._description, previous, first, self._collections)
                logger.info("a new log begins at %s", first.position)
                self._continues, self.last, stretch = True, first.position, stretch[1:]
            self.last = await self._log.append(self._description.id, self.last, stretch)
            self._has_written = True


async def _write(stream: ChangeStream, writer: _Writer) -> None:
    async with contextlib.aclosing(stream.batches()) as batches:
        async for entries in batches:
            await writer.write(entries)


def _stretches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """The entries, cut before each reset of everything: positions may go back there."""
    start = 0
    for place, entry in enumerate(entries):
        if place > start and _is_void(entry):
            yield entries[start:place]
            start = place
    yield entries[start:]


def _is_void(entry: Entry) -> bool:
    return isinstance(entry, Reset) and entry.collections is None


async def _renew(lock: Lock) -> None:
    while True:
        await asyncio.sleep(RENEWAL.total_seconds())
        with away():
            try:
                await lock.extend(LEASE.total_seconds(), replace_ttl=True)
            except LockError:  # which to redis-py is a kind of RedisError
                raise LogMoved("the lease ran out, or went to another worker") from None
