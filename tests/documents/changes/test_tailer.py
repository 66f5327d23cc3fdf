"""The change stream of a real server over its wire protocol: every kind of write, restarts and crashes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import Awaitable, Callable
from typing import Any

import bson
import pytest
from pymongo import DeleteOne, InsertOne, UpdateOne
from pymongo.errors import OperationFailure, PyMongoError

from documents.changes import Change, Checkpoint, Reset, ResetReason
from documents.codec import Stored, decode_stored
from documents.heartbeat import Heartbeat
from documents.streams import ServerStreams
from tests.documents.changes.streams import (
    Database,
    Server,
    caught_up,
    connected,
    reading,
    transaction,
)
from tests.waiting import until

POST = {"_id": 1, "title": "a", "author": {"name": "ann", "age": 3}, "tags": ["p", "q"], "n": 1}

WRITES: dict[str, Callable[[Database], Awaitable[Any]]] = {
    "insert_one": lambda db: db.posts.insert_one({"_id": 2}),
    "insert_many": lambda db: db.posts.insert_many([{"_id": i, "n": i} for i in range(2, 9)]),
    "set nested": lambda db: db.posts.update_one({"_id": 1}, {"$set": {"author.name": "bob", "author.x": 1}}),
    "set an element": lambda db: db.posts.update_one({"_id": 1}, {"$set": {"tags.1": "z"}}),
    "unset": lambda db: db.posts.update_one({"_id": 1}, {"$unset": {"author.age": 1, "n": 1}}),
    "push": lambda db: db.posts.update_one({"_id": 1}, {"$push": {"tags": {"$each": ["r", "s"]}}}),
    "pull": lambda db: db.posts.update_one({"_id": 1}, {"$pull": {"tags": "p"}}),
    "rename a field": lambda db: db.posts.update_one({"_id": 1}, {"$rename": {"n": "m"}}),
    "a pipeline": lambda db: db.posts.update_one({"_id": 1}, [{"$set": {"tags": {"$slice": ["$tags", 1]}}}]),
    "upsert": lambda db: db.posts.update_one({"_id": 3}, {"$set": {"a": 1}}, upsert=True),
    "replace_one": lambda db: db.posts.replace_one({"_id": 1}, {"title": "b"}),
    "find_one_and_update": lambda db: db.posts.find_one_and_update({"_id": 1}, {"$inc": {"n": 5}}),
    "delete_one": lambda db: db.posts.delete_one({"_id": 1}),
    "insert_many and update_many": lambda db: many(db),
    "bulk_write": lambda db: db.posts.bulk_write(
        [InsertOne({"_id": 5}), UpdateOne({"_id": 1}, {"$set": {"n": 7}}), DeleteOne({"_id": 5})]
    ),
    "transaction": lambda db: transaction(
        db,
        lambda session: db.posts.insert_one({"_id": 9}, session=session),
        lambda session: db.posts.update_one({"_id": 1}, {"$set": {"n": 9}}, session=session),
        lambda session: db.comments.insert_one({"_id": 1}, session=session),
        lambda session: db.posts.delete_one({"_id": 9}, session=session),
    ),
}


async def many(database: Database) -> None:
    await database.posts.insert_many([{"n": i} for i in range(5)])
    await database.posts.update_many({"n": {"$lt": 3}}, {"$inc": {"n": 10}})
    await database.posts.delete_many({"n": {"$gt": 10}})


@pytest.mark.parametrize("write", WRITES)
async def test_applying_the_changes_gives_what_is_stored(database: Database, write: str) -> None:
    """State before, act, apply the changes: equals the state after, for every kind of write."""
    await database.posts.insert_one(dict(POST))
    state = {("posts", 1): POST}
    async with reading(database) as reader:
        await WRITES[write](database)
        await caught_up(database, reader)
    assert reader.changes
    assert len(reader.documents) == len(reader.changes)
    for change in reader.changes:
        place = (change.collection, change.document_id)
        assert change.before == state.get(place)
        assert change.size > 0
        assert change.at.tzinfo is dt.UTC
        if change.after is None:
            del state[place]
        else:
            state[place] = change.after
    stored = {
        (name, document["_id"]): document for name in ("posts", "comments") async for document in database[name].find()
    }
    assert state == stored
    positions = [entry.position for entry in reader.entries]
    assert positions == sorted(set(positions))


async def test_changes_of_a_transaction_share_a_cluster_time_and_are_counted_from_one(
    database: Database,
) -> None:
    """The ordinals of a transaction are 1 to n, and the next write starts at 1 again."""
    async with reading(database) as reader:
        await WRITES["transaction"](database)
        await database.posts.insert_one({"_id": 10})
        await caught_up(database, reader)
    *together, after = reader.changes
    assert len({change.position.ts for change in together}) == 1
    assert [change.position.ordinal for change in together] == list(range(1, len(together) + 1))
    assert after.position.ordinal == 1


async def test_a_transaction_that_aborts_is_never_seen(database: Database) -> None:
    """Only what was committed is a change."""

    async def fail(_: Any) -> None:
        raise LookupError

    async with reading(database) as reader:
        with contextlib.suppress(LookupError):
            await transaction(database, lambda s: database.posts.insert_one({"_id": 9}, session=s), fail)
        await caught_up(database, reader)
    assert reader.documents == []


async def test_internal_collections_and_chunks_stay_out_of_the_stream(database: Database) -> None:
    """The server leaves them out, whatever is live; other collections are read and counted, but not kept."""
    async with reading(database, live=("posts", "files.chunks", "headwater_meta")) as reader:
        before = reader.stream.events
        await database["files.chunks"].insert_one({"data": b"x"})
        await database["headwater_meta"].insert_one({"x": 1})
        await database["elsewhere"].insert_one({"x": 1})
        await caught_up(database, reader)
        assert reader.stream.events - before == 2
    assert reader.documents == []


async def test_a_document_that_cannot_be_decoded_resets_its_collection(database: Database) -> None:
    """It spoils one event and neither its batch nor the feed."""

    def decode(data: bytes | memoryview) -> Stored:
        """Stands for what Python cannot represent."""
        if b"unreadable" in bytes(data):
            raise ValueError("cannot decode it")
        return decode_stored(data)

    async with reading(database, decode=decode) as reader:
        await database.posts.insert_many([{"_id": 1}, {"_id": 2, "x": ["unreadable"]}, {"_id": 3}])
        await caught_up(database, reader)
    one, reset, three = reader.documents
    assert isinstance(one, Change)
    assert isinstance(three, Change)
    assert isinstance(reset, Reset)
    assert (reset.collections, reset.reason) == (frozenset({"posts"}), ResetReason.UNPROCESSABLE)


async def test_a_collection_without_images_is_reset_on_update(database: Database) -> None:
    """Inserts are followed; an update or delete without its image before is a reset."""
    async with reading(database, live=("plain",)) as reader:
        await database.plain.insert_one({"_id": 1})
        await database.plain.update_one({"_id": 1}, {"$set": {"a": 1}})
        await caught_up(database, reader)
    change, reset = reader.documents
    assert isinstance(change, Change)
    assert isinstance(reset, Reset)
    assert reset.reason is ResetReason.IMAGE_MISSING


async def test_drop_rename_and_drop_database_reset_and_the_feed_lives_on(database: Database) -> None:
    """After the invalidate that follows dropDatabase, new writes still arrive, each once."""
    async with reading(database) as reader:
        await database.posts.insert_one({"_id": 1})
        await database.posts.rename("comments", dropTarget=True)
        await database.comments.drop()
        await database.client.drop_database(database.name)
        await reader.until(lambda: len(reader.documents) >= 4)
        await database.posts.insert_one({"_id": 2})
        await caught_up(database, reader)
        await database.posts.insert_one({"_id": 3})
        await caught_up(database, reader)
    resets = [entry for entry in reader.entries if isinstance(entry, Reset)]
    both = frozenset({"posts", "comments"})
    # The embedded server reports a drop of the renaming's target as well.
    assert [r.collections for r in resets if r.reason is ResetReason.RENAMED] == [both]
    assert resets[-1].collections == both
    assert resets[-1].reason is ResetReason.DROPPED
    assert [change.document_id for change in reader.changes] == [1, 2, 3]


async def test_a_restart_from_any_entry_gives_exactly_the_missing_ones(database: Database) -> None:
    """Positions, images and tokens are identical, also from within a transaction."""
    async with reading(database) as reader:
        await WRITES["transaction"](database)
        await WRITES["insert_many and update_many"](database)
        await caught_up(database, reader)
    for cut in range(0, len(reader.entries) - 1, 2):
        checkpoint = reader.entries[cut].checkpoint
        async with reading(database, checkpoint=checkpoint) as again:
            missing = reader.entries[cut + 1 :]
            await again.until(lambda: len(again.entries) >= len(missing))  # noqa: B023
            assert again.entries == missing


async def test_a_token_the_server_no_longer_knows_resets_everything(database: Database) -> None:
    """An oplog that does not reach back is lost history, and the feed goes on from now."""
    async with reading(database) as reader:
        entry = reader.entries[0]
    token = bson.decode(bson.encode(dict(entry.token)))
    # The embedded server's tokens hold a sequence number; this one lies before its oplog.
    streams = ServerStreams(database)
    stale = {"_data": "00" * (len(token["_data"]) // 2)}
    with pytest.raises(OperationFailure):
        await streams.open(stale)
    async with reading(database, checkpoint=Checkpoint(entry.position, stale)) as again:
        await until(lambda: again.stream.histories_lost and again.stream.connected)
        await Heartbeat(database).poke()
        await again.until(lambda: bool(again.entries))
    reset = again.entries[0]
    assert isinstance(reset, Reset)
    assert (reset.collections, reset.reason, reset.position.ordinal) == (None, ResetReason.HISTORY_LOST, 0)


async def test_server_killed_while_tailing_loses_and_repeats_nothing(durable_server: Server) -> None:
    """After a crash and restart the feed has each acknowledged write once, in order."""
    mortal_server = durable_server
    acknowledged: list[int] = []
    async with connected(mortal_server) as database, reading(database) as reader:
        for generation in range(2):

            async def write(start: int) -> None:
                for number in range(start, start + 100_000):
                    try:
                        await database.posts.insert_one({"_id": number})
                    except PyMongoError:
                        return
                    acknowledged.append(number)

            writer = asyncio.create_task(write(generation * 100_000))
            enough = len(reader.changes) + 50
            await reader.until(lambda: len(reader.changes) >= enough)  # noqa: B023
            await asyncio.to_thread(mortal_server.kill)
            await writer
            await asyncio.to_thread(mortal_server.start)
        await database.posts.insert_one({"_id": "last"})
        await reader.until(lambda: bool(reader.changes) and reader.changes[-1].document_id == "last")
        stored = [document["_id"] async for document in database.posts.find()]
    seen = [change.document_id for change in reader.changes]
    assert len(seen) == len(set(seen))
    assert set(acknowledged) <= set(seen)
    # A write whose answer was lost may be stored all the same; then it was seen too.
    assert set(seen) == set(stored)
    assert [number for number in seen if number in set(acknowledged)] == acknowledged
    assert not any(isinstance(entry, Reset) for entry in reader.entries)


async def test_a_server_that_forgot_reported_writes_in_a_crash_resets_everything(
    mortal_server: Server,
) -> None:
    """Without a write to disk for each commit a crash can undo what was seen: `reset`, never silence."""
    async with connected(mortal_server) as database, reading(database) as reader:
        for number in range(200):
            await database.posts.insert_one({"_id": number})
        await reader.until(lambda: len(reader.changes) == 200)
        await asyncio.to_thread(mortal_server.kill)
        await asyncio.to_thread(mortal_server.start)
        stored = {document["_id"] async for document in database.posts.find()}
        heartbeat = asyncio.create_task(Heartbeat(database, dt.timedelta(milliseconds=50)).run())
        try:
            before = len(reader.entries)
            await reader.until(lambda: len(reader.entries) > before)
        finally:
            heartbeat.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await heartbeat
    resets = [entry.reason for entry in reader.entries if isinstance(entry, Reset)]
    assert resets == ([] if stored == set(range(200)) else [ResetReason.HISTORY_LOST])


async def test_closing_a_quiet_stream_is_prompt(database: Database) -> None:
    """A cancelled reader waits for its getMore, half a second, and no longer."""
    async with reading(database) as reader:
        await reader.until(lambda: True)
        started = time.monotonic()
    assert time.monotonic() - started < 1.5
