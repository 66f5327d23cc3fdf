"""No write is lost: neither another API writer's nor that of somebody who writes to the database directly."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient

from documents import (
    Contended,
    DatabaseAway,
    EmbeddedDatabase,
    MongoDatabase,
    NotFound,
    Preconditions,
    Registry,
    Stale,
    Store,
    Stored,
    bind_classes,
    open_database,
)
from documents.database import Session
from tests.documents.classes import ANN, CLASSES, World

API_WRITERS = 4
WRITES_EACH = 40
COUNTERS = 3


class Interrupted(MongoDatabase):
    """The real database, where somebody else writes between each read of ours and the write that follows it."""

    @classmethod
    def of(cls, database: Any, interruptions: int, interrupt: Callable[[], Any]) -> Interrupted:
        """`interrupt` is awaited before each of the next `interruptions` conditional writes."""
        other = cls(database.client, database.name)
        other.id = database.id
        other.left, other.interrupt = interruptions, interrupt
        return other

    left: int
    interrupt: Callable[[], Any]

    async def _interrupted(self) -> None:
        if self.left > 0:
            self.left -= 1
            await self.interrupt()

    async def replace_if_unchanged(
        self, name: str, read: Stored, new: Stored, session: Session, *, unvalidated: bool = False
    ) -> bool:
        await self._interrupted()
        return await super().replace_if_unchanged(name, read, new, session, unvalidated=unvalidated)

    async def delete_if_unchanged(self, name: str, read: Stored, session: Session) -> bool:
        await self._interrupted()
        return await super().delete_if_unchanged(name, read, session)


@pytest.fixture
async def counter(world: World) -> str:
    found = await world.store.create(world.registry["counters"], ANN, {})
    return str(found.document["id"])


def interrupted(world: World, counter: str, times: int) -> Store:
    async def by_hand() -> None:
        await world.database.raw["counters"].update_one({"_id": ObjectId(counter)}, {"$inc": {"by_hand": 1}})

    return Store(Interrupted.of(world.database, times, by_hand), world.registry)


@pytest.mark.parametrize("verb", ["patch", "replace"])
async def test_a_direct_write_between_read_and_write_is_kept(world: World, counter: str, verb: str) -> None:
    """The write is made again on what the direct writer left; it did not touch the revision."""
    store, counters = interrupted(world, counter, 2), world.registry["counters"]
    if verb == "patch":
        await store.merge_patch(counters, counter, ANN, {"by_api": 1})
    else:
        # A replacement sets every field: nothing of the direct write is to be kept, yet it must not confuse.
        await store.replace(counters, counter, ANN, {"by_api": 1, "by_hand": 9})
    after = (await world.store.get(counters, counter, ANN)).document
    assert (after["by_api"], after["by_hand"]) == (1, 2 if verb == "patch" else 9)
    assert after["revision"] == 2


async def test_a_direct_write_makes_a_conditional_one_stale(world: World, counter: str) -> None:
    """With If-Match the second attempt sees another tag."""
    store, counters = interrupted(world, counter, 1), world.registry["counters"]
    etag = (await world.store.get(counters, counter, ANN)).etag
    with pytest.raises(Stale):
        await store.merge_patch(counters, counter, ANN, {"by_api": 1}, Preconditions(if_match=(etag,)))
    with pytest.raises(Stale):
        await interrupted(world, counter, 1).delete(counters, counter, ANN, Preconditions(if_match=(etag,)))
    after = (await world.store.get(counters, counter, ANN)).document
    assert (after["by_api"], after["by_hand"]) == (0, 1)


async def test_a_document_deleted_meanwhile_is_not_found(world: World, counter: str) -> None:
    """Neither a patch nor a replacement brings it back."""

    async def delete() -> None:
        await world.database.raw["counters"].delete_one({"_id": ObjectId(counter)})

    store = Store(Interrupted.of(world.database, 1, delete), world.registry)
    with pytest.raises(NotFound):
        await store.merge_patch(world.registry["counters"], counter, ANN, {"by_api": 1})
    assert await world.database.raw["counters"].count_documents({}) == 0


async def test_a_deletion_waits_for_a_quiet_moment(world: World, counter: str) -> None:
    """A delete decides on the document as it stands, so it too is made again."""
    await interrupted(world, counter, 3).delete(world.registry["counters"], counter, ANN)
    with pytest.raises(NotFound):
        await world.store.get(world.registry["counters"], counter, ANN)


async def test_a_document_that_never_rests_is_contended(
    world: World, counter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time limit the caller is told, and nothing was written."""
    monkeypatch.setattr("documents.contention.CONTENTION_TIMEOUT", dt.timedelta(milliseconds=100))
    store = interrupted(world, counter, 1_000_000)
    with pytest.raises(Contended):
        await store.merge_patch(world.registry["counters"], counter, ANN, {"by_api": 1})
    with pytest.raises(Contended):
        await store.delete(world.registry["counters"], counter, ANN)
    after = (await world.store.get(world.registry["counters"], counter, ANN)).document
    assert (after["by_api"], after["revision"]) == (0, 1)


async def test_four_api_writers_and_a_direct_one_lose_no_update(
    world: World, mongodb_url: str, database_name: str
) -> None:
    """Two Stores on connections of their own and a plain client count in the same documents; every count is there."""
    counters = world.registry["counters"]
    ids = [str((await world.store.create(counters, ANN, {})).document["id"]) for _ in range(COUNTERS)]
    second = await open_database(mongodb_url, database_name)
    stores = [world.store, Store(second, world.registry)]

    async def write(store: Store) -> None:
        done = 0
        while done < WRITES_EACH:
            id_text = ids[done % COUNTERS]
            seen = await store.get(counters, id_text, ANN)
            try:
                await store.merge_patch(
                    counters,
                    id_text,
                    ANN,
                    {"by_api": seen.document["by_api"] + 1},
                    Preconditions(if_match=(seen.etag,)),
                )
            except Stale:
                continue
            done += 1

    def write_directly() -> None:
        with MongoClient[dict[str, Any]](mongodb_url) as client:
            for count in range(WRITES_EACH * 2):
                client[database_name]["counters"].update_one(
                    {"_id": ObjectId(ids[count % COUNTERS])}, {"$inc": {"by_hand": 1}}
                )

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(write_directly))
            for number in range(API_WRITERS):
                group.create_task(write(stores[number % 2]))
    finally:
        await second.close()
    documents = [(await world.store.get(counters, id_text, ANN)).document for id_text in ids]
    assert sum(d["by_api"] for d in documents) == API_WRITERS * WRITES_EACH
    assert sum(d["by_hand"] for d in documents) == WRITES_EACH * 2
    assert sum(d["revision"] - 1 for d in documents) == API_WRITERS * WRITES_EACH


async def test_unconditional_patches_of_different_fields_lose_nothing(world: World, counter: str) -> None:
    """Without If-Match a patch keeps what others write into other fields meanwhile."""
    counters = world.registry["counters"]

    async def write() -> None:
        for value in range(1, 31):
            await world.store.merge_patch(counters, counter, ANN, {"by_api": value})

    async def write_directly() -> None:
        for _ in range(60):
            await world.database.raw["counters"].update_one({"_id": ObjectId(counter)}, {"$inc": {"by_hand": 1}})

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        group.create_task(write_directly())
    after = (await world.store.get(counters, counter, ANN)).document
    assert (after["by_api"], after["by_hand"], after["revision"]) == (30, 60, 31)


@pytest.fixture
async def own_server(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[tuple[EmbeddedDatabase, str]]:
    server = EmbeddedDatabase(tmp_path, free_port(), durable=False)
    try:
        yield server, await server.start()
    finally:
        await server.stop()


async def test_a_server_that_is_gone_is_away(
    own_server: tuple[EmbeddedDatabase, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads, writes and the ping of a stopped server raise DatabaseAway; so does opening it."""
    server, url = own_server
    monkeypatch.setattr("documents.database.SERVER_SELECTION_TIMEOUT", dt.timedelta(milliseconds=300))
    database = await open_database(url, "gone")
    try:
        registry = Registry(CLASSES)
        await bind_classes(database, registry)
        store, notes = Store(database, registry), registry["notes"]
        made = await store.create(notes, ANN, {"title": "a"})
        await server.stop()
        for call in (
            lambda: store.get(notes, str(made.document["id"]), ANN),
            lambda: store.create(notes, ANN, {"title": "b"}),
            lambda: store.merge_patch(notes, str(made.document["id"]), ANN, {"score": 1}),
            lambda: store.delete(notes, str(made.document["id"]), ANN),
            database.ping,
            lambda: open_database(url, "gone"),
        ):
            with pytest.raises(DatabaseAway):
                await call()
    finally:
        await database.close()
