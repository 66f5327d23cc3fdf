"""Workers as far as the relay is concerned: each contends for the lease, and reads entries as a feed would."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from documents import (
    Change,
    ChangeStream,
    Checkpoint,
    Checkpoints,
    Entry,
    EntryCodec,
    Heartbeat,
    Position,
    Registry,
    Reset,
    bind_classes,
    install,
    live_collections,
    open_database,
)
from documents.streams import ServerStreams
from realtime.feed_redis import RelayedSource
from realtime.log_redis import RedisLog
from realtime.relay import Relay
from tests.waiting import until

PATIENCE_SECONDS = 30
MAX_AGE = dt.timedelta(minutes=15)


class Setting:
    """One database with its classes, and the Redis that its workers share."""

    def __init__(self, database: Any, registry: Registry, redis_url: str) -> None:
        self.database = database
        self.registry = registry
        self.redis_url = redis_url
        self.collections = live_collections(registry)
        self.checkpoints = Checkpoints(database.raw, interval=dt.timedelta())

    def open_stream(self, checkpoint: Checkpoint | None) -> ChangeStream:
        """The change stream, in short requests, so that it ends soon."""
        streams = ServerStreams(self.database.raw, max_await=dt.timedelta(milliseconds=50))
        return ChangeStream(self.database.raw, self.collections, checkpoint, open_cursor=streams.open)

    def log(self, *, max_entries: int = 50_000, max_bytes: int = 67_108_864) -> RedisLog:
        """A client of the log."""
        codec = EntryCodec(self.registry)
        return RedisLog(self.redis_url, self.database.id, codec, max_entries=max_entries, max_bytes=max_bytes)

    async def write(self, count: int) -> None:
        """Insert posts, one by one."""
        for _ in range(count):
            slug = uuid.uuid4().hex
            await self.database.raw["posts"].insert_one({"slug": slug, "title": slug, "password_hash": "x"})


class Node:
    """One worker: what it has read, in order."""

    def __init__(self, setting: Setting, log: RedisLog, checkpoint: Checkpoint | None = None) -> None:
        self.setting = setting
        self.log = log
        self.relay = Relay(log, setting.open_stream, setting.checkpoints.latest, setting.collections, MAX_AGE)
        self.source = RelayedSource(log, setting.open_stream, setting.collections, checkpoint)
        self.entries: list[Entry] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def changes(self) -> list[Change]:
        """The changes among the entries."""
        return [entry for entry in self.entries if isinstance(entry, Change)]

    @property
    def resets(self) -> list[Reset]:
        """The resets among the entries."""
        return [entry for entry in self.entries if isinstance(entry, Reset)]

    @property
    def head(self) -> Position:
        """The last entry's position."""
        return self.entries[-1].position if self.entries else Position.ZERO

    async def has(self, count: int) -> None:
        """Wait until so many changes were read."""
        await until(lambda: len(self.changes) >= count)

    def start(self, *, relaying: bool = True) -> None:
        """Read, and contend for the lease."""
        work = [self._read(), self.relay.run()] if relaying else [self._read()]
        self._tasks = [asyncio.create_task(each) for each in work]

    async def _read(self) -> None:
        async with contextlib.aclosing(self.source.batches()) as batches:
            async for batch in batches:
                self.entries += batch

    async def stop(self) -> None:
        """End in good order."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.log.close()
        for result in results:
            if isinstance(result, Exception):
                raise result


@contextlib.asynccontextmanager
async def nodes(setting: Setting, count: int, **limits: int) -> AsyncIterator[list[Node]]:
    """Workers that have read their first entry."""
    running = [Node(setting, setting.log(**limits)) for _ in range(count)]
    try:
        for node in running:
            node.start()
        await until(lambda: all(node.entries for node in running))
        yield running
    finally:
        for node in running:
            await node.stop()


@contextlib.asynccontextmanager
async def setting_on(mongodb_url: str, name: str, redis_url: str) -> AsyncIterator[Setting]:
    """An empty database with the starter classes; dropped afterwards."""
    database: Any = await open_database(mongodb_url, name)
    try:
        registry = Registry.load(["documents.models"])
        await bind_classes(database, registry)
        await install(database, registry, "off")
        setting = Setting(database, registry, redis_url)
        await setting.checkpoints.install()
        beating = asyncio.create_task(Heartbeat(database.raw, interval=dt.timedelta(milliseconds=200)).run())
        try:
            yield setting
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        await database.client.drop_database(name)
    finally:
        await database.close()


@contextlib.contextmanager
def watching(setting: Setting) -> Iterator[Truth]:
    """What the database itself says happened, read by a stream of its own."""
    truth = Truth(setting)
    try:
        yield truth
    finally:
        truth.task.cancel()


class Truth:
    """Every entry of the change stream since the start."""

    def __init__(self, setting: Setting) -> None:
        self.entries: list[Entry] = []
        self._setting = setting
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with contextlib.aclosing(self._setting.open_stream(None).batches()) as batches:
            async for batch in batches:
                self.entries += batch

    async def agrees(self, node: Node) -> None:
        """Wait until `node` has everything, and assert that it has each entry once, in order."""
        await self._setting.write(1)
        marker = await self._setting.database.raw["posts"].find_one({}, sort=[("_id", -1)])
        await until(lambda: any(_id(entry) == marker["_id"] for entry in self.entries))
        await until(lambda: any(_id(entry) == marker["_id"] for entry in node.entries))
        first, last = node.entries[0].position, node.head
        # The node may be ahead of this stream.
        await until(lambda: self.entries[-1].position >= last)
        expected = [entry.position for entry in self.entries if first <= entry.position <= last]
        assert [entry.position for entry in node.entries if entry.position <= last] == expected


def _id(entry: Entry) -> Any:
    return entry.document_id if isinstance(entry, Change) else None
