"""Checkpoints: found by position, saved once a second, expiring with the window, and good to start from."""

from __future__ import annotations

import datetime as dt

from bson import Timestamp

from documents.changes import Checkpoint
from documents.checkpoints import Checkpoints
from documents.positions import Position
from tests.documents.changes.streams import (
    Database,
    caught_up,
    reading,
)


async def test_checkpoints_are_found_by_position(database: Database) -> None:
    """The last one at or before a position, the latest of all, and none before the first."""
    checkpoints = Checkpoints(database, interval=dt.timedelta())
    await checkpoints.install()
    await checkpoints.install()
    assert await checkpoints.latest() is None
    stored = [
        Checkpoint(Position.of(Timestamp(10, 1), 1), {"_data": "a"}),
        Checkpoint(Position.of(Timestamp(10, 1), 4), {"_data": "b"}),
        Checkpoint(Position.of(Timestamp(11, 0), 2), {"_data": "c"}),
    ]
    for checkpoint in [*stored, stored[1]]:
        assert await checkpoints.save(checkpoint)
    assert await checkpoints.latest() == stored[2]
    assert await checkpoints.at_or_before(Position.of(Timestamp(10, 1), 0)) is None
    assert await checkpoints.at_or_before(Position.of(Timestamp(10, 1), 3)) == stored[0]
    assert await checkpoints.at_or_before(stored[1].position) == stored[1]
    assert await checkpoints.at_or_before(Position.end_of(Timestamp(10, 9))) == stored[1]
    assert await database["headwater_checkpoints"].count_documents({}) == 3


async def test_checkpoints_are_saved_once_a_second(database: Database) -> None:
    """Saving after each batch costs one write a second."""
    checkpoints = Checkpoints(database, interval=dt.timedelta(hours=1))
    assert await checkpoints.save(Checkpoint(Position(1 << 32, 1), {"_data": "a"}))
    assert not await checkpoints.save(Checkpoint(Position(2 << 32, 1), {"_data": "b"}))
    latest = await checkpoints.latest()
    assert latest is not None
    assert latest.token == {"_data": "a"}


async def test_checkpoints_expire_with_the_window(database: Database) -> None:
    """The index that removes old ones has a name, and follows the setting."""
    for hours in (24, 48):
        await Checkpoints(database, window=dt.timedelta(hours=hours)).install()
        indexes = await database["headwater_checkpoints"].index_information()
        assert indexes["expiry"]["expireAfterSeconds"] == hours * 3600


async def test_a_stream_starts_from_a_stored_checkpoint(database: Database) -> None:
    """Tokens survive being stored."""
    checkpoints = Checkpoints(database)
    async with reading(database) as reader:
        await checkpoints.save(reader.entries[-1].checkpoint)
        await database.posts.insert_one({"_id": 1})
        await caught_up(database, reader)
    stored = await checkpoints.latest()
    assert stored is not None
    async with reading(database, checkpoint=stored) as again:
        await again.until(lambda: len(again.entries) >= 2)
        assert again.entries == reader.entries[1:]
