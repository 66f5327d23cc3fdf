"""Writers of every kind: through the API of any worker, straight into the database, and changes of access."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from bson import ObjectId
from pymongo import UpdateMany
from pymongo.errors import PyMongoError

from tests.chaos.clients import Account
from tests.chaos.ledger import Ledger
from tests.chaos.site import Site

GROUPS = ("a", "b", "c", "d")
TAGS = ("x", "y", "z")
#: The collections are kept about this large.
DOCUMENTS = 150
MERGE, JSON_PATCH, UPDATE = (
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/vnd.headwater.update+json",
)
#: What a write may come to while faults happen. Anything else is a bug, above all 500.
EXPECTED = frozenset({200, 201, 204, 207, 401, 403, 404, 409, 412, 422, 503})


def now() -> dt.datetime:
    """The time as it is stored."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


class Writers:
    """Writes at random, `rate` times a second of each kind."""

    def __init__(
        self, site: Site, accounts: list[Account], admin: Account, ledger: Ledger, chance: random.Random, rate: float
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._site = site
        self._accounts = accounts
        self._admin = admin
        self._ledger = ledger
        self._chance = chance
        self._rate = rate
        self._ids: list[str] = []
        self._posts: list[str] = []
        #: Set when no more is to be written; `run` ends when what is under way is done.
        self.enough = asyncio.Event()

    async def run(self) -> None:
        """Write, until it is enough."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(self._by_api, 1.0))
            group.create_task(self._keep(self._by_api, 1.0))
            group.create_task(self._keep(self._direct, 1.0))
            group.create_task(self._keep(self._scratch, 0.3))
            group.create_task(self._keep(self._publishing, 0.3))
            group.create_task(self._keep(self._access, 0.05))

    async def _keep(self, write: Callable[[], Awaitable[object]], share: float) -> None:
        while not self.enough.is_set():
            try:
                await write()
            except (PyMongoError, httpx.HTTPError, TimeoutError) as error:
                self.counts[f"failed: {type(error).__name__}"] += 1
                await asyncio.sleep(0.2)
            await asyncio.sleep(self._chance.expovariate(self._rate * share))

    async def call(
        self, account: Account, method: str, path: str, body: Any = None, media: str = "application/json"
    ) -> httpx.Response:
        """A request to any worker."""
        worker = self._chance.choice(self._site.workers)
        headers = {"Authorization": f"Bearer {account.token}", "Content-Type": media}
        content = None if body is None else json.dumps(body)
        answer = await worker.http.request(method, f"/api/v1{path}", content=content, headers=headers)
        self.counts[f"{method} {answer.status_code}"] += 1
        unexplained = answer.status_code == 503 and not self._site.excuses(worker.port)
        if unexplained or answer.status_code not in EXPECTED:
            self._ledger.violate(f"{method} {path} at {worker.name}", f"{answer.status_code}: {answer.text[:500]}")
        return answer

    def _reading(self) -> dict[str, Any]:
        chance = self._chance
        return {
            "group": chance.choice(GROUPS),
            "value": chance.randrange(100),
            "note": chance.choice(("dry", "damp", "wet")) + "." * chance.randrange(40),
            "tags": [tag for tag in TAGS if chance.random() < 0.4],
            "status": chance.choice(("open", "open", "closed")),
        }

    async def _by_api(self) -> None:
        chance, account = self._chance, self._chance.choice(self._accounts)
        id = chance.choice(self._ids) if self._ids else None
        what = chance.randrange(10)
        if id is None or what < 2 or (what == 2 and len(self._ids) < DOCUMENTS):
            answer = await self.call(account, "POST", "/readings", self._reading())
            if answer.status_code == 201:
                self._ids.append(answer.json()["id"])
        elif what in (3, 4):
            change = {key: value for key, value in self._reading().items() if chance.random() < 0.4}
            await self.call(account, "PATCH", f"/readings/{id}", change, MERGE)
        elif what == 5:
            steps = [{"op": "replace", "path": "/value", "value": chance.randrange(100)}]
            await self.call(account, "PATCH", f"/readings/{id}", steps, JSON_PATCH)
        elif what == 6:
            operators: dict[str, Any] = {"$inc": {"value": 1}, "$addToSet": {"tags": chance.choice(TAGS)}}
            await self.call(account, "PATCH", f"/readings/{id}", operators, UPDATE)
        elif what == 7:
            await self.call(account, "PUT", f"/readings/{id}", self._reading())
        elif what == 8:
            operations: list[dict[str, Any]] = [
                {"op": "create", "document": self._reading()},
                {"op": "update", "id": id, "patch": {"value": chance.randrange(100)}},
                {"op": "create", "document": self._reading()},
            ]
            body = {"operations": operations, "atomic": chance.random() < 0.7}
            answer = await self.call(account, "POST", "/readings/bulk", body)
            if answer.status_code in (200, 207):
                self._ids += [r["id"] for r in answer.json()["results"] if r["status"] == 201]
        elif len(self._ids) > DOCUMENTS // 2:
            self._ids.remove(id)
            await self.call(account, "DELETE", f"/readings/{id}")

    def _stored(self) -> dict[str, Any]:
        owner = ObjectId(self._chance.choice(self._accounts).id)
        book = {"revision": 1, "created_at": now(), "updated_at": now(), "grade": self._chance.randrange(5)}
        return self._reading() | {"owner_id": owner} | book

    async def _direct(self) -> None:
        chance, readings = self._chance, self._site.db["readings"]
        self.counts["direct"] += 1
        what = chance.randrange(7)
        if what == 0:
            done = await readings.insert_many([self._stored() for _ in range(chance.randrange(1, 6))])
            self._ids += map(str, done.inserted_ids)
        elif what == 1:
            await readings.update_many(
                {"group": chance.choice(GROUPS), "value": {"$lt": 15}}, {"$inc": {"value": chance.randrange(3, 40)}}
            )
        elif what == 2:
            # Out of some filters and into others.
            await readings.update_many(
                {"value": {"$gte": chance.randrange(85, 120)}, "group": {"$in": list(GROUPS)}},
                {"$set": {"value": chance.randrange(100), "group": chance.choice(GROUPS)}},
            )
        elif what == 3 and self._ids:
            id = ObjectId(chance.choice(self._ids))
            if (old := await readings.find_one({"_id": id})) is not None:
                # Only what was read: else the revision would go back, where somebody changes it meanwhile.
                read = {"_id": id, "revision": old["revision"]}
                await readings.replace_one(read, self._stored() | read)
        elif what == 4:
            await self._transaction()
        elif what == 5:
            await readings.bulk_write(
                [
                    UpdateMany({"group": group, "tags": "x", "value": {"$gt": 80}}, {"$push": {"tags": "y"}})
                    for group in GROUPS[:2]
                ]
            )
        elif await readings.estimated_document_count() > DOCUMENTS:
            await readings.delete_many({"group": chance.choice(GROUPS), "value": {"$gt": 60}})
            left = {str(found["_id"]) async for found in readings.find({}, {"_id": 1})}
            self._ids = [id for id in self._ids if id in left]

    async def _transaction(self) -> None:
        readings = self._site.db["readings"]
        async with self._site.database.client.start_session() as session, await session.start_transaction():
            await readings.insert_one(self._stored(), session=session)
            await readings.update_many(
                {"group": self._chance.choice(GROUPS), "value": {"$lt": 10}}, {"$inc": {"value": 30}}, session=session
            )

    async def _scratch(self) -> None:
        scratches, value = self._site.db["scratches"], self._chance.randrange(-10, 30)
        if self._chance.random() < 0.5:
            await self.call(self._accounts[0], "POST", "/scratches", {"group": "a", "value": value})
        elif await scratches.estimated_document_count() > DOCUMENTS // 2:
            await scratches.delete_many({"value": {"$lt": 15}, "group": {"$ne": "marker"}})
        else:
            await scratches.update_many({"group": "a", "value": {"$lt": 5}}, {"$inc": {"value": 3}})

    async def _publishing(self) -> None:
        """Posts come, are moderated, and go."""
        chance, author = self._chance, self._chance.choice(self._accounts[:4])
        if len(self._posts) < DOCUMENTS // 3:
            body = {"title": f"Post {chance.random()}", "status": chance.choice(("draft", "published"))}
            answer = await self.call(author, "POST", "/posts", body)
            if answer.status_code == 201:
                self._posts.append(answer.json()["id"])
            return
        id = chance.choice(self._posts)
        if chance.random() < 0.5:
            status = chance.choice(("hidden", "published"))
            await self.call(self._admin, "POST", f"/posts/{id}/moderate", {"status": status, "reason": "As it is."})
        elif chance.random() < 0.5:
            await self.call(author, "PATCH", f"/posts/{id}", {"title": f"Post {chance.random()}"}, MERGE)
        else:
            self._posts.remove(id)
            await self.call(self._admin, "DELETE", f"/posts/{id}")

    async def _access(self) -> None:
        """The last three accounts are now moderators, now not, and now and then may not sign in."""
        account = self._chance.choice(self._accounts[-3:])
        if not account.active:
            change: dict[str, Any] = {"is_active": True}
        elif self._chance.random() < 0.35:
            change = {"is_active": False}
        else:
            change = {"roles": ["user", *(["moderator"] if self._chance.random() < 0.5 else [])]}
        if change.get("is_active") is False:
            account.active = False  # whatever comes of it
        # An admin's deactivation ends sessions for good, and these accounts have one each.
        if change.get("is_active") is False or self._chance.random() < 0.5:
            done = await self._site.db["users"].update_one({"_id": ObjectId(account.id)}, {"$set": change})
            changed = bool(done.matched_count)
        else:
            answer = await self.call(self._admin, "PATCH", f"/users/{account.id}", change)
            changed = answer.status_code == 200
        if changed:
            if change.get("is_active"):
                account.activated()
            self.counts["access changed"] += 1

    async def settle(self) -> None:
        """All accounts may sign in again."""
        for account in self._accounts:
            # Whatever was answered: an answer may have been lost.
            await self._site.db["users"].update_one({"_id": ObjectId(account.id)}, {"$set": {"is_active": True}})
            account.activated()


async def mark(site: Site) -> str:
    """Write a document into each collection that every view shows; answers its id. It starts with `ffff`."""
    id = ObjectId("ffff" + str(ObjectId())[4:])
    book = {"_id": id, "revision": 1, "created_at": now(), "updated_at": now()}
    await site.db["readings"].insert_one(
        # So great that it leads every order that a view has.
        book | {"group": "marker", "value": 1_000_000, "note": "", "tags": [], "status": "open", "grade": 0}
    )
    await site.db["scratches"].insert_one(book | {"group": "marker", "value": 1_000_000})
    text = {"title": "Marker", "slug": f"marker-{id}", "body": "", "tags": ["marker"]}
    await site.db["posts"].insert_one(book | text | {"status": "published", "author_id": ObjectId()})
    return str(id)
