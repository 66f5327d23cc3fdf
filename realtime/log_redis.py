"""The log that workers share: a Redis stream of entries, and the channel that says what was appended.

One *log* is one unbroken stretch of history. A new one begins where the old one cannot be continued: Redis lost it,
the database's history was lost, or another version of the server follows other collections. Its id is random, and the
keys contain the database's id, so a restored or exchanged database never meets a log of another.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, cast

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from documents import Entry, EntryCodec, Logged, NotAnEntry, PoolUse, Position, Reset
from realtime.redis_place import CLUSTER, RedisPlace
from realtime.redis_pool import use_of

#: Entries and bytes in one call of the script: Redis does nothing else meanwhile.
BATCH_ENTRIES: Final = 500
BATCH_BYTES: Final = 512 * 1024
PAGE_ENTRIES: Final = 500
#: A Redis that does not answer for so long is away.
TIMEOUT: Final = dt.timedelta(seconds=2)
#: The first Redis with channels that stay on the nodes of a slot.
SHARDED_SINCE: Final = 7
#: How often the relay says where the log ends.
HEAD_INTERVAL: Final = dt.timedelta(milliseconds=500)


class LogAway(Exception):
    """Redis does not answer, or refuses to write."""


class LogMoved(Exception):
    """The log does not end where the writer believed: somebody else has written, or Redis has lost something."""


class LogTooShort(Exception):
    """The log no longer holds what follows the reader's position, or never did."""


@dataclass(frozen=True, slots=True)
class LogDescription:
    """What is known of the present log. `void`: what was held before it began belongs to a history that is gone."""

    id: str
    collections: frozenset[str]
    void: bool


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends, as its relay says twice a second; `connected`: whether the relay hears the database."""

    log: str
    position: Position
    connected: bool


Message = Head | tuple[Logged, ...]


class RedisLog:
    """Reads and writes the log of one database.

    All methods raise LogAway when Redis does not answer within TIMEOUT or refuses. Safe to cancel: a write that was
    sent may or may not happen, which the next one finds out.
    """

    def __init__(self, url: str, database_id: str, codec: EntryCodec, *, max_entries: int, max_bytes: int) -> None:
        self._codec = codec
        self._limits = (max_entries, max_bytes)
        # The braces keep all keys of a database on one node of a cluster.
        self._prefix = f"{{headwater:{database_id}}}:1"
        self._description = f"{self._prefix}:log"
        self._entries_channel = f"{self._prefix}:entries"
        self._head_channel = f"{self._prefix}:head"
        seconds = TIMEOUT.total_seconds()
        place = RedisPlace.parse(url)
        pool = place.pool(
            ConnectionPool,
            self._description,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            health_check_interval=0,
        )
        self.redis: Redis = Redis.from_pool(pool)
        self._is_cluster = place.kind == CLUSTER
        self._version: int | None = None
        scripts = resources.files("realtime")
        self._append = self.redis.register_script((scripts / "append.lua").read_text())
        self._begin = self.redis.register_script((scripts / "begin.lua").read_text())

    @property
    def lease(self) -> str:
        """The key of the relay's lease."""
        return f"{self._prefix}:relay"

    @property
    def pool(self) -> PoolUse:
        """The connections to Redis."""
        return use_of(self.redis.connection_pool)

    async def close(self) -> None:
        """Close all connections."""
        await self.redis.aclose()

    async def describe(self) -> LogDescription | None:
        """The present log; None when there is none."""
        with away():
            values = await cast("Any", self.redis.hmget(self._description, ["log", "collections", "void"]))
        log, collections, void = values
        if log is None or collections is None:
            return None
        try:
            names = frozenset[str](json.loads(collections))
        except (TypeError, ValueError):
            # Nobody's that we know: nobody can follow it, and the next relay begins another in its place.
            names = frozenset()
        return LogDescription(log.decode(errors="replace"), names, void == b"1")

    async def last(self, log: str) -> Logged | None:
        """The log's last entry; None when it is gone."""
        with away():
            found = await self.redis.xrevrange(self._stream(log), count=1)
        return next(iter(self._decoded(found)), None)

    async def first(self, log: str) -> Logged | None:
        """The oldest entry that the log still has; None when it is gone."""
        with away():
            found = await self.redis.xrange(self._stream(log), count=1)
        return next(iter(self._decoded(found)), None)

    async def covers(self, log: str, position: Position) -> bool:
        """Whether the log has everything that follows `position`."""
        first = await self.first(log)
        return first is not None and first.previous <= position

    async def begin(
        self, replaced: LogDescription | None, previous: Position, entry: Entry, collections: frozenset[str]
    ) -> LogDescription:
        """Begin a log with `entry`; what follows `previous` is in it. Raises LogMoved when `replaced` is not there."""
        log = secrets.token_hex(4)
        void = isinstance(entry, Reset) and entry.collections is None
        data = self._codec.encode(Logged(log, previous, entry))
        old = "" if replaced is None else replaced.id
        with away():
            refusal = await self._begin(
                keys=[self._description, self._stream(log), self._stream(old or log)],
                args=[
                    old,
                    log,
                    _id(entry.position),
                    data,
                    self._entries_channel,
                    json.dumps(sorted(collections)),
                    "1" if void else "0",
                    await self._publish_command(),
                ],
            )
        _check(refusal)
        return LogDescription(log, collections, void)

    async def append(self, log: str, last: Position, entries: Sequence[Entry]) -> Position:
        """Append entries behind `last` and publish them; returns the log's new end.

        Raises LogMoved, and then has written nothing of the batch that was refused; earlier batches stay.
        """
        for batch in _batches(self._codec, log, last, entries):
            with away():
                command = await self._publish_command()
                refusal = await self._append(
                    keys=[self._description, self._stream(log)],
                    args=[log, _id(last), *self._limits, self._entries_channel, command, *batch.arguments],
                )
            _check(refusal)
            last = batch.last
        return last

    async def listeners(self) -> int:
        """How many workers listen to what is appended."""
        with away():
            ask = self.redis.pubsub_shardnumsub if await self._sharded() else self.redis.pubsub_numsub
            (_, count), *_ = await ask(self._entries_channel)
        return int(count)

    async def announce(self, head: Head) -> None:
        """Say where the log ends, so that a lost last message is noticed."""
        text = json.dumps([head.log, head.position.ts, head.position.ordinal, head.connected])
        with away():
            publish = self.redis.spublish if await self._sharded() else self.redis.publish
            await publish(self._head_channel, text)

    async def after(self, log: str, position: Position) -> AsyncGenerator[list[Logged], None]:
        """What follows `position`, in pages, up to the end as it is when it is reached. Raises LogTooShort."""
        while True:
            with away():
                found = await self.redis.xrange(self._stream(log), min=f"({_id(position)}", count=PAGE_ENTRIES)
            page = list(self._decoded(found))
            if not page:
                if await self.first(log) is None:
                    raise LogTooShort("the log is gone")
                return
            if page[0].previous > position:
                raise LogTooShort(f"the log begins after {page[0].previous}")
            yield page
            position = page[-1].entry.position

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[Messages]:
        """Everything that is published from the moment this is entered."""
        pubsub = self.redis.pubsub()
        try:
            with away():
                subscribe = pubsub.ssubscribe if await self._sharded() else pubsub.subscribe
                await subscribe(self._entries_channel, self._head_channel)
                for _ in range(2):  # the confirmations
                    await pubsub.get_message(timeout=TIMEOUT.total_seconds())
            yield Messages(pubsub, self._codec, self._head_channel.encode())
        finally:
            # The connection may be dead, and its end must not hide why we are here.
            with contextlib.suppress(RedisError, OSError, asyncio.TimeoutError, RuntimeError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _publish_command(self) -> str:
        return "SPUBLISH" if await self._sharded() else "PUBLISH"

    async def _sharded(self) -> bool:
        """Whether messages stay on the nodes that have the keys. Else a Cluster carries each to all of its nodes."""
        if self._is_cluster and self._version is None:
            info = await self.redis.info("server")
            self._version = int(str(info["redis_version"]).split(".")[0])
        return self._version is not None and self._version >= SHARDED_SINCE

    def _stream(self, log: str) -> str:
        return f"{self._prefix}:log:{log}"

    def _decoded(self, found: Any) -> Iterator[Logged]:
        for _, fields in found or ():
            try:
                (logged,) = self._codec.decode(fields[b"e"])
            except (NotAnEntry, KeyError, ValueError) as error:
                raise LogTooShort(f"the log holds something else: {type(error).__name__}: {error}") from None
            yield logged


class Messages:
    """What is heard on the channels, message by message."""

    def __init__(self, pubsub: PubSub, codec: EntryCodec, head_channel: bytes) -> None:
        self._pubsub = pubsub
        self._codec = codec
        self._head_channel = head_channel

    async def next(self, seconds: float) -> Message | None:
        """The next message; None when there is none for so many seconds. Raises LogAway."""
        with away():
            message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=seconds)
        if message is None:
            return None
        data = message["data"]
        try:
            if message["channel"] == self._head_channel:
                log, ts, ordinal, connected = json.loads(data)
                return Head(str(log), Position(int(ts), int(ordinal)), bool(connected))
            if entries := tuple(self._codec.decode(data)):
                return entries
            raise NotAnEntry("an empty message")
        except (NotAnEntry, TypeError, ValueError) as error:
            raise LogAway(f"the channel carries something else: {error}") from None


@contextlib.contextmanager
def away() -> Iterator[None]:
    """Raise LogAway in place of Redis' errors."""
    try:
        yield
    # RuntimeError: what uvloop says when redis-py uses a connection that was closed a moment ago.
    except (TimeoutError, RedisError, OSError, RuntimeError) as error:
        _heed_cancellation()
        raise LogAway(f"{type(error).__name__}: {error}") from None
    _heed_cancellation()


def _heed_cancellation() -> None:
    """Raise a cancellation that was swallowed below us: else it is lost for good.

    redis-py sends within `asyncio.wait_for`, which until Python 3.12 drops a cancellation that comes when the sending
    is just done (CPython issue 86296).
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@dataclass(frozen=True, slots=True)
class _Batch:
    arguments: list[str | bytes]
    last: Position


def _batches(codec: EntryCodec, log: str, last: Position, entries: Sequence[Entry]) -> Iterator[_Batch]:
    """The entries encoded, in batches within the bounds; an entry above them is a batch of its own."""
    arguments: list[str | bytes] = []
    size = 0
    for entry in entries:
        data = codec.encode(Logged(log, last, entry))
        if arguments and (size + len(data) > BATCH_BYTES or len(arguments) >= 2 * BATCH_ENTRIES):
            yield _Batch(arguments, last)
            arguments, size = [], 0
        arguments += [_id(entry.position), data]
        size += len(data)
        last = entry.position
    if arguments:
        yield _Batch(arguments, last)


def _check(refusal: Any) -> None:
    if refusal:
        raise LogMoved(refusal.decode())


def _id(position: Position) -> str:
    """A position as the id of a stream's entry: both are two numbers, ordered alike."""
    return f"{position.ts}-{position.ordinal}"
