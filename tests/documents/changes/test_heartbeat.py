"""The heartbeat: shared pokes, and a quiet or unreachable database."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from typing import Any

import pytest
from bson import ObjectId
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from documents.errors import DatabaseAway
from documents.heartbeat import Heartbeat
from tests.documents.changes.streams import (
    Database,
    Server,
    connected,
    reading,
)


async def test_pokes_at_once_share_a_write_and_a_later_one_gets_its_own(database: Database) -> None:
    """A poke during a write waits for the one after it, because that write may have been sent too early."""
    heartbeat = Heartbeat(database)
    await asyncio.gather(*(heartbeat.poke() for _ in range(50)))
    assert heartbeat.beats == 1
    first = asyncio.create_task(heartbeat.poke())
    # Two turns of the loop: the task of the poke, then the task of its write, which so is under way.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.gather(first, *(heartbeat.poke() for _ in range(50)))
    assert heartbeat.beats == 3


class WritesUnderWay(CommandListener):
    """Counts the updates that have been sent and not answered."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "update":
            self.now += 1
            self.most = max(self.most, self.now)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self.now -= event.command_name == "update"

    def failed(self, event: CommandFailedEvent) -> None:
        self.now -= event.command_name == "update"


async def test_pokes_never_have_two_writes_under_way(server: Server) -> None:
    """However they come, a slow database is not flooded with heartbeats."""
    writes = WritesUnderWay()
    client: AsyncIOMotorClient[Any] = AsyncIOMotorClient(server.url, event_listeners=[writes])
    heartbeat = Heartbeat(client[f"test_{ObjectId()}"])
    pokes = []
    for _ in range(200):
        pokes.append(asyncio.create_task(heartbeat.poke()))
        await asyncio.sleep(0)
    await asyncio.gather(*pokes)
    client.close()
    assert writes.most == 1
    assert 2 <= heartbeat.beats < 200


async def test_a_cancelled_poke_does_not_cancel_the_others(database: Database) -> None:
    """The write belongs to all who wait for it."""
    heartbeat = Heartbeat(database)
    impatient, patient = asyncio.create_task(heartbeat.poke()), asyncio.create_task(heartbeat.poke())
    await asyncio.sleep(0)
    impatient.cancel()
    await patient
    assert heartbeat.beats == 1
    assert impatient.cancelled()


async def test_the_heartbeat_moves_a_quiet_feed_and_survives_an_outage(mortal_server: Server) -> None:
    """Beats come without any other write, and again after the server was away."""
    async with connected(mortal_server) as database, reading(database) as reader:
        heartbeat = Heartbeat(database, interval=dt.timedelta(milliseconds=20))
        task = asyncio.create_task(heartbeat.run())
        try:
            await reader.until(lambda: len(reader.entries) >= 5)
            assert reader.stream.lag is not None
            await asyncio.to_thread(mortal_server.kill)
            with pytest.raises(DatabaseAway):
                await heartbeat.poke()
            await asyncio.to_thread(mortal_server.start)
            before = len(reader.entries)
            await reader.until(lambda: len(reader.entries) >= before + 5)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    assert reader.changes == []
