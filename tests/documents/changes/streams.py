"""A real server that can be killed, and a reader that tails it: what the change stream's tests share."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from bson import ObjectId
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from documents.changes import Beat, Change, Checkpoint, Entry, Reset
from documents.codec import decode_stored
from documents.heartbeat import Heartbeat
from documents.streams import Decode, ServerStreams
from documents.tailer import ChangeStream
from tests.waiting import until

Database = AsyncIOMotorDatabase[Any]
CODEC: CodecOptions[Any] = CodecOptions(tz_aware=True, tzinfo=dt.UTC, uuid_representation=4)

WAIT = 20.0


class Server:
    """The embedded server as a child process that can be killed and started again on the same data."""

    def __init__(self, storage: Path, *options: str) -> None:
        self._storage, self._options = storage, options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = (
            f"mongodb://127.0.0.1:{self.port}/?retryWrites=false&directConnection=true&serverSelectionTimeoutMS=4000"
        )
        self.start()

    def start(self) -> None:
        program = Path(sys.executable).parent / "secantusd-py"
        options = {"--port": self.port, "--storage-path": self._storage, "--log-level": "WARNING",
                   "--oplog-max-entries": 5_000_000, "--oplog-retention-seconds": 86_400,
                   "--noop-heartbeat-seconds": 5}  # fmt: skip
        arguments = [str(word) for option in options.items() for word in option]
        arguments += self._options
        self._process = subprocess.Popen([program, *arguments], stderr=subprocess.DEVNULL)  # noqa: S603
        deadline = time.monotonic() + WAIT
        with MongoClient[Any](self.url) as client:
            while True:
                try:
                    client.admin.command("ping")
                    return
                except PyMongoError:
                    if time.monotonic() > deadline:
                        raise

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        self._process.send_signal(how)
        self._process.wait()


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Database]:
    client: AsyncIOMotorClient[Any] = AsyncIOMotorClient(server.url)
    database = client.get_database(f"test_{ObjectId()}", codec_options=CODEC)
    for name in ("posts", "comments"):
        await database.create_collection(name, changeStreamPreAndPostImages={"enabled": True})
    try:
        yield database
    finally:
        client.close()


class Reader:
    """Tails in the background and keeps what comes."""

    def __init__(self, stream: ChangeStream) -> None:
        self.stream = stream
        self.batches: list[list[Entry]] = []
        self._arrived = asyncio.Condition()

    @property
    def entries(self) -> list[Entry]:
        return [entry for batch in self.batches for entry in batch]

    @property
    def documents(self) -> list[Change | Reset]:
        return [entry for entry in self.entries if not isinstance(entry, Beat)]

    @property
    def changes(self) -> list[Change]:
        return [entry for entry in self.entries if isinstance(entry, Change)]

    async def run(self) -> None:
        async with contextlib.aclosing(self.stream.batches()) as batches:
            async for batch in batches:
                async with self._arrived:
                    self.batches.append(batch)
                    self._arrived.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT), self._arrived:
            await self._arrived.wait_for(condition)


@contextlib.asynccontextmanager
async def reading(
    database: Database,
    live: tuple[str, ...] = ("posts", "comments"),
    checkpoint: Checkpoint | None = None,
    decode: Decode = decode_stored,
) -> AsyncIterator[Reader]:
    """A running reader; without a checkpoint, one that has seen a first heartbeat."""
    streams = ServerStreams(database, decode=decode)
    reader = Reader(ChangeStream(database, live, checkpoint, open_cursor=streams.open))
    task = asyncio.create_task(reader.run())
    try:
        if checkpoint is None:
            await until(lambda: reader.stream.connected)
            await Heartbeat(database).poke()
            await reader.until(lambda: bool(reader.entries))
        yield reader
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def caught_up(database: Database, reader: Reader) -> None:
    """Everything written before this call has been read."""
    before = sum(isinstance(entry, Beat) for entry in reader.entries)
    await Heartbeat(database).poke()
    await reader.until(lambda: sum(isinstance(entry, Beat) for entry in reader.entries) > before)


async def transaction(database: Database, *writes: Callable[[Any], Awaitable[Any]]) -> None:
    async with await database.client.start_session() as session, session.start_transaction():
        for write in writes:
            await write(session)
