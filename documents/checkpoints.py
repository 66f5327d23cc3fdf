"""Where the feed stood, second by second, kept for as long as clients may resume.

A checkpoint restarts the feed after a stop, and is where a replay of older history begins.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from typing import Any, Final

from bson import Timestamp
from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import DESCENDING, IndexModel
from pymongo.errors import OperationFailure

from documents.changes import Checkpoint
from documents.database import driver_errors
from documents.positions import Position

COLLECTION: Final = "headwater_checkpoints"

#: IndexOptionsConflict, IndexKeySpecsConflict: it exists with another time.
_INDEX_CONFLICTS = frozenset({85, 86})


class Checkpoints:
    """The collection of checkpoints.

    A stored one reads `{cluster_time: Timestamp, ordinal, token, saved_at: ISODate}`; position and token were
    read together and are stored together. All methods raise DatabaseAway when the database does not answer.
    """

    def __init__(
        self,
        database: AsyncIOMotorDatabase[Any],
        window: dt.timedelta = dt.timedelta(hours=24),
        interval: dt.timedelta = dt.timedelta(seconds=1),
    ) -> None:
        self._database = database
        self._collection: AsyncIOMotorCollection[Any] = database[COLLECTION]
        self._window = window
        self._interval = interval.total_seconds()
        self._due = 0.0

    async def install(self) -> None:
        """Create the indexes. May be repeated, and must be after the database was dropped."""
        seconds = int(self._window.total_seconds())
        position = IndexModel([("cluster_time", DESCENDING), ("ordinal", DESCENDING)], name="position")
        with driver_errors():
            await self._collection.create_indexes([position])
            try:
                await self._collection.create_index("saved_at", name="expiry", expireAfterSeconds=seconds)
            except OperationFailure as error:
                if error.code not in _INDEX_CONFLICTS:
                    raise
                await self._database.command(
                    "collMod", COLLECTION, index={"name": "expiry", "expireAfterSeconds": seconds}
                )

    async def save(self, checkpoint: Checkpoint) -> bool:
        """Store a checkpoint whose entry has been dealt with, unless one was stored less than a second ago.

        Answers whether it was stored. A failed save counts as none: the next one is tried at once.
        """
        now = time.monotonic()
        if now < self._due:
            return False
        position = checkpoint.position
        with driver_errors():
            # The same position twice (two workers, a replay) is one document.
            await self._collection.update_one(
                {"cluster_time": position.timestamp, "ordinal": position.ordinal},
                {"$set": {"token": checkpoint.token, "saved_at": dt.datetime.now(dt.UTC)}},
                upsert=True,
            )
        self._due = now + self._interval
        return True

    async def latest(self, max_age: dt.timedelta | None = None) -> Checkpoint | None:
        """The last checkpoint, or None if there is none, or none that is younger than `max_age`."""
        found = await self._last({})
        if found is None or max_age is None:
            return found
        age = dt.datetime.now(dt.UTC).timestamp() - found.position.timestamp.time
        return found if age <= max_age.total_seconds() else None

    async def at_or_before(self, position: Position) -> Checkpoint | None:
        """The last checkpoint from which the change after `position` can still be read, or None."""
        at = position.timestamp
        earlier = {"cluster_time": {"$lt": at}}
        same_time = {"cluster_time": at, "ordinal": {"$lte": position.ordinal}}
        return await self._last({"$or": [earlier, same_time]})

    async def _last(self, condition: Mapping[str, Any]) -> Checkpoint | None:
        with driver_errors():
            found = await self._collection.find_one(
                condition, sort=[("cluster_time", DESCENDING), ("ordinal", DESCENDING)]
            )
        if found is None:
            return None
        cluster_time: Timestamp = found["cluster_time"]
        return Checkpoint(Position.of(cluster_time, found["ordinal"]), found["token"])
