"""A small write each second, whose own change keeps the feed of a quiet database moving."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable
from typing import Any

from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo.errors import DuplicateKeyError, PyMongoError

from documents.changes import HEARTBEATS
from documents.database import driver_errors
from documents.errors import DatabaseAway, DocumentsError

logger = logging.getLogger(__name__)


def always() -> bool:
    """True: of a process that is the only one."""
    return True


class Heartbeat:
    """Updates one document of `headwater_heartbeat`, each second and on demand."""

    def __init__(self, database: AsyncIOMotorDatabase[Any], interval: dt.timedelta = dt.timedelta(seconds=1)) -> None:
        self._collection: AsyncIOMotorCollection[Any] = database[HEARTBEATS]
        self._interval = interval.total_seconds()
        self._writing: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        #: Writes made, for metrics.
        self.beats = 0
        #: When the newest one was acknowledged, as `time.monotonic` has it.
        self.acknowledged_at: float | None = None

    async def run(self, needed: Callable[[], bool] = always) -> None:
        """Beat while it is `needed`, until cancelled. An unreachable database is logged once and tried again."""
        away = False
        while True:
            try:
                if needed():
                    await self.poke()
                away = False
            except DocumentsError as error:
                if not away:
                    logger.warning("heartbeat failed: %s", error)
                away = True
            await asyncio.sleep(self._interval)

    async def poke(self) -> None:
        """Make the feed pass every cluster time that has been seen before this call.

        Returns when the write is acknowledged; its `Beat` follows in the feed. Callers share writes: one is
        under way at a time, and all calls made meanwhile share the one after it (the one under way may have
        been sent before the cluster time that they wait for). Safe to cancel. Raises DatabaseAway.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._write_after(self._writing))
        # Shielded: the write belongs to all callers.
        await asyncio.shield(self._next)

    async def _write_after(self, previous: asyncio.Task[None] | None) -> None:
        if previous is not None and not previous.done():
            await asyncio.wait({previous})
        # From here on the write counts as sent; later callers need another one.
        self._writing, self._next = self._next, None
        if self._writing is not None:
            # Marks an error as seen even when every caller was cancelled.
            self._writing.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            with driver_errors():
                try:
                    await self._write()
                except DuplicateKeyError:
                    # Two workers inserted the document at once; now it is there.
                    await self._write()
        except PyMongoError as error:
            raise DatabaseAway(f"the heartbeat was refused ({type(error).__name__})") from error
        self.beats += 1
        self.acknowledged_at = time.monotonic()

    async def _write(self) -> None:
        await self._collection.update_one(
            {"_id": "heartbeat"}, {"$inc": {"beats": 1}, "$currentDate": {"at": True}}, upsert=True
        )
