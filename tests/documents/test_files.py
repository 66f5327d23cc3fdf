"""Files and their contents: kept in step whatever happens, and no byte left behind."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from bson import ObjectId
from motor.motor_asyncio import AsyncIOMotorGridFSBucket

from documents import ANONYMOUS, ContentLost, DatabaseAway, Duplicate, Files, Forbidden, InvalidInput, NotFound
from documents.contents import CHUNK_BYTES, DEAD_AFTER, Upload
from tests.documents.classes import ADMIN, ANN, BOB, MODERATOR, World

LONG_AGO = dt.datetime.now(dt.UTC) - 2 * DEAD_AFTER


def files_of(world: World) -> Files:
    """The files of a world."""
    return Files(world.database, world.registry, world.store)


async def upload(files: Files, *contents: bytes, filename: str = "a.bin") -> list[dict[str, Any]]:
    """Upload as ann, in pieces of odd sizes; returns the metadata."""
    async with files.receive(ANN) as batch:
        for content in contents:
            await batch.begin(filename)
            for start in range(0, len(content), 100_003):
                await batch.write(content[start : start + 100_003])
            await batch.end()
        return [found.document for found in await batch.commit()]


async def stored(world: World) -> dict[str, int]:
    """How many documents each collection of files has."""
    names = ("files", "files.files", "files.chunks", "headwater_unfinished")
    return {name: await world.database.raw[name].count_documents({}) for name in names}


NOTHING = {"files": 0, "files.files": 0, "files.chunks": 0, "headwater_unfinished": 0}


async def read(files: Files, id_text: str, start: int = 0, stop: int | None = None) -> bytes:
    """What ann downloads."""
    content = await files.content(id_text, ANN)
    return b"".join([data async for data in content.read(start, content.length if stop is None else stop)])


async def test_nobody_uploads(contract: World) -> None:
    """An anonymous caller, and a key that may not write files, are refused before anything is stored."""
    files = files_of(contract)
    for caller in (ANONYMOUS, ANN.within(frozenset({"files:read", "posts:write"}))):
        with pytest.raises(Forbidden):
            async with files.receive(caller):
                pass
    assert await stored(contract) == NOTHING


async def test_a_file_of_somebody_else(contract: World) -> None:
    """It is not there; moderators read it and may not delete it; a key reads within its scopes; admins delete."""
    files = files_of(contract)
    (document,) = await upload(files, b"water")
    id_text = document["id"]
    for caller in (ANONYMOUS, BOB, ANN.within(frozenset({"posts:read"}))):
        with pytest.raises(NotFound):
            await files.content(id_text, caller)
        with pytest.raises(NotFound):
            await files.delete(id_text, caller)
    assert (await files.content(id_text, MODERATOR)).length == 5
    for caller in (MODERATOR, ANN.within(frozenset({"files:read"}))):
        with pytest.raises(Forbidden):
            await files.delete(id_text, caller)
    assert await read(files, id_text) == b"water"
    assert (await stored(contract))["headwater_unfinished"] == 0
    await files.delete(id_text, ADMIN)
    assert await stored(contract) == NOTHING


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 7])
async def test_sizes_around_a_chunk(contract: World, size: int) -> None:
    """What is read is what was written, all of it and across every boundary."""
    files = files_of(contract)
    content = hashlib.shake_256(b"river").digest(size)
    (document,) = await upload(files, content)
    assert (document["size"], document["sha256"]) == (size, hashlib.sha256(content).hexdigest())
    assert await read(files, document["id"]) == content
    edges = sorted({n for edge in range(0, size + 1, CHUNK_BYTES) for n in (edge - 1, edge, edge + 1)} | {size})
    for start, stop in [(a, b) for a in edges for b in edges if 0 <= a < b <= size]:
        assert await read(files, document["id"], start, stop) == content[start:stop]


async def test_other_programs_read_it(world: World) -> None:
    """It is GridFS, bucket `files`, under the metadata's id."""
    (document,) = await upload(files_of(world), b"water" * 100_000, filename="gauge.txt")
    bucket = AsyncIOMotorGridFSBucket(world.database.raw, "files")
    stream = await bucket.open_download_stream(ObjectId(document["id"]))
    assert (stream.filename, stream.length) == ("gauge.txt", 500_000)
    assert await stream.read() == b"water" * 100_000


async def test_other_programs_write_it(world: World) -> None:
    """A content of another chunk size, whose metadata somebody wrote by hand, is read; deleting it leaves nothing."""
    bucket = AsyncIOMotorGridFSBucket(world.database.raw, "files", chunk_size_bytes=1_000)
    content = bytes(range(256)) * 40
    file_id = await bucket.upload_from_stream("by-hand.bin", content)
    metadata = {"filename": "by-hand.bin", "content_type": "image/png", "size": len(content), "sha256": "0" * 64}
    await world.database.raw.files.insert_one({"_id": file_id, **metadata, "owner_id": ANN.user_id})
    files = files_of(world)
    assert await read(files, str(file_id)) == content
    assert await read(files, str(file_id), 999, 3_001) == content[999:3_001]
    await files.delete(str(file_id), ANN)
    assert await stored(world) == NOTHING


async def test_a_request_that_fails_leaves_nothing(contract: World) -> None:
    """Whatever its reason, also for the files that were complete."""

    async def fail() -> None:
        async with files_of(contract).receive(ANN) as batch:
            await batch.begin("a")
            await batch.write(b"a" * (CHUNK_BYTES + 1))
            await batch.end()
            await batch.begin("b")
            await batch.write(b"b" * (2 * CHUNK_BYTES))
            assert (await stored(contract))["files.chunks"] == 4
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await fail()
    assert await stored(contract) == NOTHING


async def test_a_request_without_a_file(contract: World) -> None:
    """It is refused, and so is one with too many."""
    files = files_of(contract)
    with pytest.raises(InvalidInput, match="no file"):
        await upload(files)
    with pytest.raises(InvalidInput, match="more than 20"):
        await upload(files, *[b"a"] * 21)
    assert await stored(contract) == NOTHING


async def test_an_image_that_is_none(contract: World) -> None:
    """With images only, the first bytes decide and the fault names the file; the ones before it do not stay."""
    files = files_of(contract)

    async def begin(first: bytes) -> None:
        async with files.receive(ANN, images_only=True) as batch:
            await batch.begin("a.png")
            await batch.write(first)
            await batch.end()
            await batch.begin("b.png")
            await batch.write(b"<html>" + b"a" * 4_090)

    with pytest.raises(InvalidInput) as refused:
        await begin(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert [fault.loc for fault in refused.value.faults] == [("body", "files", 1)]
    assert "b.png is text/html" in refused.value.faults[0].msg
    with pytest.raises(InvalidInput, match=r"a\.png is application/octet-stream"):
        await begin(b"")
    assert await stored(contract) == NOTHING


async def test_an_upload_that_is_cancelled_while_it_writes(world: World, eventually: Callable[..., Any]) -> None:
    """The write that is under way in its thread is waited for, and removed with the others."""
    files = files_of(world)
    uploads: list[Upload] = []

    async def endless() -> None:
        async with files.receive(ANN) as batch:
            await batch.begin("endless")
            uploads.extend(batch.uploads)
            while True:
                await batch.write(b"a" * CHUNK_BYTES)

    for _ in range(5):
        uploads.clear()
        task = asyncio.create_task(endless())
        await eventually(lambda: uploads and uploads[0].size >= 3 * CHUNK_BYTES)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await stored(world) == NOTHING


async def test_a_deletion_while_somebody_reads(contract: World) -> None:
    """The reader is told that it broke off."""
    files = files_of(contract)
    (document,) = await upload(files, bytes(10 * CHUNK_BYTES))
    reading = (await files.content(document["id"], ANN)).read(0, 10 * CHUNK_BYTES)
    assert len(await anext(reading)) == CHUNK_BYTES
    await files.delete(document["id"], ANN)
    with pytest.raises(ContentLost):
        async for _ in reading:
            pass


@pytest.mark.parametrize("data", [b"", bytes(CHUNK_BYTES - 1), "text"])
async def test_a_chunk_that_is_damaged(contract: World, data: Any) -> None:
    """A chunk that holds less than it should, or no bytes, is not passed off as the content."""
    files = files_of(contract)
    (document,) = await upload(files, bytes(2 * CHUNK_BYTES + 1))
    await contract.database.raw["files.chunks"].update_one({"n": 1}, {"$set": {"data": data}})
    with pytest.raises(ContentLost):
        await read(files, document["id"])


@pytest.mark.parametrize("damage", [{"n": 1}, {"n": 2}])
async def test_a_chunk_that_is_missing(contract: World, damage: dict[str, Any]) -> None:
    """Nothing is passed over, be it in the middle or at the end."""
    files = files_of(contract)
    (document,) = await upload(files, bytes(2 * CHUNK_BYTES + 1))
    await contract.database.raw["files.chunks"].delete_one(damage)
    with pytest.raises(ContentLost):
        await read(files, document["id"])
    await contract.database.raw["files.files"].delete_many({})
    with pytest.raises(ContentLost):
        await read(files, document["id"])


async def test_what_a_killed_server_left(contract: World) -> None:
    """The sweep removes what is old and has no metadata, and nothing else; twice at once is the same."""
    files = files_of(contract)
    (kept,) = await upload(files, b"kept")
    unfinished = contract.database.raw["headwater_unfinished"]
    by_hand = {"_id": ObjectId(), "files_id": ObjectId(), "n": 0, "data": b"somebody else's"}
    await contract.database.raw["files.chunks"].insert_one(by_hand)
    before = await stored(contract)

    left = await files.contents.announce()  # no block that would clean up: the process is gone
    dead = Upload(contract.database, left)
    await left.add(dead.id)
    await dead.write(bytes(2 * CHUNK_BYTES))
    await dead.finish("left.bin")
    living = await files.contents.announce(ObjectId())
    committed = await files.contents.announce(ObjectId(kept["id"]))
    assert await files.contents.sweep() == 0
    assert (await stored(contract))["files.chunks"] == before["files.chunks"] + 2

    await unfinished.update_many({"_id": {"$in": [left.id, committed.id]}}, {"$set": {"alive_at": LONG_AGO}})
    assert sorted(await asyncio.gather(files.contents.sweep(), files.contents.sweep())) in ([0, 1], [1, 1])
    assert await stored(contract) == before | {"headwater_unfinished": 1}
    assert await read(files, kept["id"]) == b"kept"
    await living.renew()
    with pytest.raises(DatabaseAway):
        await left.renew()
    await unfinished.update_one({"_id": living.id}, {"$set": {"swept_at": LONG_AGO}})
    with pytest.raises(DatabaseAway):  # another server is about to remove its contents
        await living.renew()


async def test_an_upload_that_was_swept(contract: World) -> None:
    """It was taken for dead and lives after all: it fails, and leaves nothing."""
    files = files_of(contract)

    async def sleep_and_wake() -> None:
        async with files.receive(ANN) as batch:
            await batch.begin("slow")
            await batch.write(bytes(CHUNK_BYTES))
            await contract.database.raw["headwater_unfinished"].update_many({}, {"$set": {"alive_at": LONG_AGO}})
            assert await files.contents.sweep() == 1
            await batch.write(bytes(CHUNK_BYTES))
            await batch.end()
            await batch.commit()

    with pytest.raises(DatabaseAway):
        await sleep_and_wake()
    assert await stored(contract) == NOTHING


async def test_a_server_that_dies_between_the_two_steps(contract: World) -> None:
    """Metadata that was deleted without its content, and metadata that was stored without a word to the sweep."""
    files = files_of(contract)
    deleted, stays = await upload(files, b"deleted", b"stays")
    for document in (deleted, stays):
        await files.contents.announce(ObjectId(document["id"]))
    await contract.database.raw.files.delete_one({"_id": ObjectId(deleted["id"])})
    await contract.database.raw["headwater_unfinished"].update_many({}, {"$set": {"alive_at": LONG_AGO}})
    assert await files.contents.sweep() == 1
    assert await stored(contract) == {"files": 1, "files.files": 1, "files.chunks": 1, "headwater_unfinished": 0}
    assert await read(files, stays["id"]) == b"stays"


async def test_metadata_of_several_files(contract: World) -> None:
    """All of them are inserted, or none."""
    database = contract.database
    first, second = ({"_id": ObjectId(), "title": str(n), "hush": str(n), "score": 0, "cost": 0} for n in range(2))
    for note in (first, second):
        note["checked"] = False
    async with database.session() as session:
        await database.insert("notes", second, session)
    with pytest.raises(Duplicate):
        async with database.session() as session:
            await database.insert_together("notes", [first, second], session)
    assert await database.raw.notes.count_documents({}) == 1
    third = second | {"_id": ObjectId(), "hush": "third"}
    async with database.session() as session:
        await database.insert_together("notes", [first, third], session)
    assert await database.raw.notes.count_documents({}) == 3


async def test_a_sweep_that_runs(contract: World) -> None:
    """The first one is at the start."""
    files = files_of(contract)
    left = await files.contents.announce(ObjectId())
    unfinished = contract.database.raw["headwater_unfinished"]
    await unfinished.update_one({"_id": left.id}, {"$set": {"alive_at": LONG_AGO}})
    running = asyncio.create_task(files.contents.run())
    try:
        async with asyncio.timeout(20):
            while await unfinished.count_documents({}):  # noqa: ASYNC110 - the database sets no event of ours
                await asyncio.sleep(0)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
