"""Which worker processes serve a database, and orders that one of them gives to all.

Internal collections, the same with and without Redis, on one machine or many: `headwater_workers` has a document for
each worker, which it renews; `headwater_orders` is empty but for the seconds that an order takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pymongo import IndexModel
from pymongo.errors import PyMongoError

from documents.codec import Stored
from documents.database import Database, driver_errors
from documents.errors import DocumentsError
from documents.resources import utc_now

WORKERS: Final = "headwater_workers"
ORDERS: Final = "headwater_orders"
REPLIES: Final = "headwater_replies"

#: A worker that has not renewed its document for so long is gone. It does so every two seconds.
ABSENT_AFTER: Final = dt.timedelta(seconds=7)
#: What nobody takes away goes by itself after this.
_KEPT_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Order:
    """Something that every worker is to do and to answer. `terms` are BSON values."""

    id: str
    name: str
    terms: Stored


class Workers:
    """The workers of one database. All methods raise DatabaseAway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def install(self) -> None:
        """Create the named indexes. Safe to repeat, and while several processes start."""
        for name, field in ((WORKERS, "seen_at"), (ORDERS, "at"), (REPLIES, "at")):
            expiring = IndexModel([(field, 1)], name="expire_forgotten", expireAfterSeconds=_KEPT_SECONDS)
            with driver_errors():
                await self._database.raw[name].create_indexes([expiring])

    async def announce(self, worker: str, facts: Stored) -> None:
        """Say that a worker serves, and what there is to know of it. Stamped by the database's clock."""
        with driver_errors():
            await self._database.latest(WORKERS).update_one(
                {"_id": worker}, {"$set": facts, "$currentDate": {"seen_at": True}}, upsert=True
            )

    async def leave(self, worker: str) -> None:
        """The worker stops."""
        with driver_errors():
            await self._database.latest(WORKERS).delete_one({"_id": worker})

    async def present(self) -> list[Stored]:
        """What the workers said last that are there: as the newest of them tells the time, whoever's clock is wrong."""
        return (await self.roll())[0]

    async def roll(self) -> tuple[list[Stored], list[Stored]]:
        """What those said last that are `present`, and those that fell silent in the last minute without leaving."""
        with driver_errors():
            found = await self._database.latest(WORKERS).find({}).to_list(None)
        known = [worker for worker in found if isinstance(worker.get("seen_at"), dt.datetime)]
        newest = max((worker["seen_at"] for worker in known), default=None)
        present = [worker for worker in known if newest is not None and newest - worker["seen_at"] < ABSENT_AFTER]
        return present, [worker for worker in known if worker not in present]

    async def give(self, name: str, terms: Stored) -> Order:
        """Give an order to all workers. `withdraw` it; when this is cancelled, nothing is given."""
        order = Order(uuid.uuid4().hex, name, terms)
        document = {"_id": order.id, "name": name, "terms": terms, "at": utc_now()}
        with driver_errors():
            giving = asyncio.ensure_future(self._database.latest(ORDERS).insert_one(document))
            try:
                await asyncio.shield(giving)
            except asyncio.CancelledError:
                # The driver's thread goes on, so the order comes all the same.
                with contextlib.suppress(PyMongoError, DocumentsError):
                    await giving
                    await self.withdraw(order)
                raise
        return order

    async def orders(self, done: Collection[str]) -> list[Order]:
        """The orders that are there, but for those that are `done`."""
        with driver_errors():
            found = await self._database.latest(ORDERS).find({"_id": {"$nin": list(done)}}).to_list(None)
        return [Order(order["_id"], order["name"], order["terms"]) for order in found]

    async def reply(self, order: Order, worker: str, content: Stored) -> None:
        """A worker's answer to an order; none stays for one that was withdrawn meanwhile."""
        answer = {"_id": f"{order.id} {worker}", "order": order.id, "worker": worker, "content": content}
        with driver_errors():
            await self._database.latest(REPLIES).insert_one(answer | {"at": utc_now()})
            if await self._database.latest(ORDERS).find_one({"_id": order.id}, {"_id": 1}) is None:
                await self._database.latest(REPLIES).delete_one({"_id": answer["_id"]})

    async def replies(self, order: Order, workers: Sequence[str]) -> dict[str, Any]:
        """The answers of these workers that have come, by worker."""
        ids = [f"{order.id} {worker}" for worker in workers]
        with driver_errors():
            found = await self._database.latest(REPLIES).find({"_id": {"$in": ids}}).to_list(None)
        return {reply["worker"]: reply["content"] for reply in found}

    async def withdraw(self, order: Order) -> None:
        """Take an order and its answers away."""
        with driver_errors():
            await self._database.latest(ORDERS).delete_one({"_id": order.id})
            await self._database.latest(REPLIES).delete_many({"order": order.id})
