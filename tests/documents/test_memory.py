"""The in-memory database: its own source of changes, in order, with exact images."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from bson import ObjectId

from documents import Beat, Change, ChangeKind, Entry, MemoryDatabase, NotFound
from tests.documents.classes import ANN, World


async def changes(database: MemoryDatabase, count: int) -> list[Entry]:
    """The next `count` entries."""
    found: list[Entry] = []
    batches = database.batches()
    assert isinstance(batches, AsyncGenerator)
    try:
        async with asyncio.timeout(5):
            while len(found) < count:
                found.extend(await anext(batches))
    finally:
        await batches.aclose()
    return found


async def test_writes_are_emitted_in_order(memory: World) -> None:
    """Insert, replace and delete, each once, with images before and after and rising positions."""
    database = memory.database
    assert isinstance(database, MemoryDatabase)
    notes, store = memory.registry["notes"], memory.store
    made = await store.create(notes, ANN, {"title": "a"})
    id_text = str(made.document["id"])
    patched = await store.merge_patch(notes, id_text, ANN, {"title": "b"})
    deleted_at = await store.delete(notes, id_text, ANN)
    entries = await changes(database, 3)
    assert all(isinstance(entry, Change) for entry in entries)
    seen = [entry for entry in entries if isinstance(entry, Change)]
    assert [c.kind for c in seen] == [ChangeKind.INSERT, ChangeKind.REPLACE, ChangeKind.DELETE]
    assert {c.document_id for c in seen} == {ObjectId(id_text)}
    titles = [((c.before or {}).get("title"), (c.after or {}).get("title")) for c in seen]
    assert titles == [(None, "a"), ("a", "b"), ("b", None)]
    assert seen[1].before == seen[0].after
    positions = [c.position for c in seen]
    assert positions == sorted(set(positions))
    for found, change in zip((made.position, patched.position, deleted_at), seen, strict=True):
        assert found >= change.position
    assert made.position < seen[1].position


async def test_a_write_that_fails_is_no_change(memory: World) -> None:
    """What was refused is not heard of; the heartbeat that follows is the first entry."""
    database = memory.database
    assert isinstance(database, MemoryDatabase)
    with pytest.raises(NotFound):
        await memory.store.delete(memory.registry["notes"], str(ObjectId()), ANN)
    assert not await database.replace_if_unchanged("notes", {"_id": 1, "a": 1}, {"_id": 1, "a": 2}, None)
    await database.poke()
    (first,) = await changes(database, 1)
    assert isinstance(first, Beat)


async def test_writers_at_once_lose_nothing(memory: World) -> None:
    """The contract of conditional writes holds in memory too."""
    counters, store = memory.registry["counters"], memory.store
    made = await store.create(counters, ANN, {})
    id_text = str(made.document["id"])
    await asyncio.gather(*(store.merge_patch(counters, id_text, ANN, {"by_api": n}) for n in range(1, 21)))
    after = await store.get(counters, id_text, ANN)
    assert after.document["revision"] == 21


async def test_images_are_copies(memory: World) -> None:
    """Changing a document that was read changes neither what is stored nor what was emitted."""
    database = memory.database
    assert isinstance(database, MemoryDatabase)
    document = {"_id": 1, "list": [1]}
    await database.insert("plain", document, None)
    document["list"] = [2]
    (change,) = await changes(database, 1)
    assert isinstance(change, Change)
    assert change.after == {"_id": 1, "list": [1]}
    assert await database.raw["plain"].find_one({"_id": 1}) == {"_id": 1, "list": [1]}
