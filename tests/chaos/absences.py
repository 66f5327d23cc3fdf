"""Clients that take nothing for a while: the faults that are not the server's."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence

from bson import ObjectId
from pymongo.errors import PyMongoError

from tests.chaos.clients import Client
from tests.chaos.ledger import Ledger
from tests.chaos.site import Site, until
from tests.chaos.writers import now

#: Longer than a server waits for a client that takes nothing.
STUCK_SECONDS = 12.0
TOLD_SECONDS = 8.0
LIVE_SECONDS = 30.0
ABSENCES = 6
FLOOD_BYTES, FLOOD_DOCUMENTS = 20_000, 60


class Absences:
    """Faults of these clients, which read nothing while they are told to."""

    def __init__(self, site: Site, ledger: Ledger, absent: Sequence[Client]) -> None:
        self._site = site
        self._ledger = ledger
        self._absent = tuple(absent)

    async def consumers_slow(self) -> None:
        """Some clients read nothing for a while, and then go on: what did not fit is lost to them, and they hear so."""
        await self._absence(lambda: self._ledger.resets["lagging"], "a client that reads too slowly is not told", 0.5)

    async def consumers_stuck(self) -> None:
        """Some clients read nothing for longer than the server waits for them, which closes their connections."""
        await self._absence(lambda: self._ledger.given_up, "a client that reads nothing is kept", STUCK_SECONDS)

    async def _absence(self, told: Callable[[], int], what: str, seconds: float) -> None:
        """Let the absent clients read nothing, flood them, and see that one of them is `told`."""
        before = told()
        # A fault of the workers may end a connection before it lags.
        for _ in range(ABSENCES):
            await self._are_live(self._absent)
            for client in self._absent:
                client.gate.clear()
            try:
                await self._flood()
                await asyncio.sleep(seconds)
            finally:
                for client in self._absent:
                    client.gate.set()
            with contextlib.suppress(TimeoutError):
                await until(lambda: told() > before, what, TOLD_SECONDS)
                return
        raise TimeoutError(what)

    @staticmethod
    async def _are_live(clients: Sequence[Client]) -> None:
        """Wait until they are, but not for ever: something else may be wrong."""
        with contextlib.suppress(TimeoutError):
            await until(lambda: all(client.ready for client in clients), "clients are not live", LIVE_SECONDS)

    async def _flood(self) -> None:
        """Insert more than waits on the way to a client and in its outbox, and delete it."""
        readings = self._site.db["readings"]
        book = {"revision": 1, "created_at": now(), "updated_at": now(), "grade": 0, "owner_id": ObjectId()}
        more = {"group": "heavy", "tags": [], "status": "open", "value": -1}

        async def inserted() -> bool:
            try:
                # Random, because messages are compressed.
                await readings.insert_one(more | book | {"note": secrets.token_hex(FLOOD_BYTES // 2)})
            except PyMongoError:  # the database has a fault of its own
                return False
            return True

        for _ in range(FLOOD_DOCUMENTS):
            await until(inserted, "the database takes a document")
        with contextlib.suppress(PyMongoError):
            await readings.delete_many({"group": "heavy"})
