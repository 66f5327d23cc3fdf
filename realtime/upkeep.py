"""What the feed owes the database: checkpoints to resume from, and the schema where a collection was lost."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Sequence

from documents import (
    Checkpoints,
    Database,
    DatabaseRefused,
    DocumentsError,
    Entry,
    Registry,
    Reset,
    SchemaAction,
    always,
    install,
)
from realtime.feed import Feed

logger = logging.getLogger("headwater.upkeep")

INTERVAL = dt.timedelta(seconds=1)


class Upkeep:
    """Stores a checkpoint each second, and installs the schema again after a drop, a rename or a restored database.

    A checkpoint is that of an entry which every listener has had, so a restart from it misses nothing. `own` install
    what the server keeps besides documents: a database that was dropped lacks that, too.
    """

    def __init__(
        self,
        feed: Feed,
        checkpoints: Checkpoints,
        database: Database,
        registry: Registry,
        action: SchemaAction,
        own: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self._installs = [checkpoints.install, *own]
        self._checkpoints = checkpoints
        self._database = database
        self._registry = registry
        self._action = action
        self._last: Entry | None = None
        self._schema_lost = False
        feed.add_listener(self._on_entry)

    def _on_entry(self, entry: Entry) -> None:
        self._last = entry
        if isinstance(entry, Reset):
            self._schema_lost = True

    async def run(self, saves: Callable[[], bool] = always) -> None:
        """Work until cancelled; checkpoints are stored while `saves()`. What fails is tried again at the next turn."""
        while True:
            try:
                await self._install()
                if self._last is not None and saves():
                    await self._checkpoints.save(self._last.checkpoint)
            except DocumentsError as error:
                logger.warning("upkeep of the database failed, trying again: %s", error)
            except Exception:
                # Whatever it is, the next turn may succeed; a worker without checkpoints must not go unnoticed.
                logger.exception("upkeep of the database failed, trying again")
            await asyncio.sleep(INTERVAL.total_seconds())

    async def _install(self) -> None:
        if self._schema_lost:
            # Cleared before the work, so that a drop during it is not forgotten, and set again if it fails.
            self._schema_lost = False
            try:
                try:
                    await install(self._database, self._registry, self._action)
                except DatabaseRefused as error:
                    # All the rest is installed, and trying again would change nothing: a person has to.
                    for line in str(error).splitlines():
                        logger.error("the schema is not as the classes want it: %s", line)
                for installed in self._installs:
                    await installed()
            except BaseException:
                self._schema_lost = True
                raise
