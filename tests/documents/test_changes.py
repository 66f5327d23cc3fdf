"""The change stream of a real server over its wire protocol: every kind of write, restarts and crashes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Int64, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import DeleteOne, InsertOne, MongoClient, UpdateOne
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from documents.changes import Beat, Change, Checkpoint, Entry, Reset, ResetReason
from documents.checkpoints import Checkpoints
from documents.errors import DatabaseAway
from documents.heartbeat import Heartbeat
from documents.images import apply_update
from documents.positions import Position
from documents.streams import ServerStreams
from documents.tailer import ChangeStream

Database = AsyncIOMotorDatabase[Any]
CODEC: CodecOptions[Any] = CodecOptions(tz_aware=True, tzinfo=dt.UTC, uuid_representation=4)
WAIT = 20.0


class Server:
    """The embedded server as a child process that can be killed and started again on the same data."""

    def __init__(self, storage: Path, *options: str) -> None:
        self._storage, self._options = storage, options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = (
            f"mongodb://127.0.0.1:{self.port}/?retryWrites=false&directConnection=true&serverSelectionTimeoutMS=4000"
        )
        self.start()

    def start(self) -> None:
        program = Path(sys.executable).parent / "secantusd-py"
        options = {"--port": self.port, "--storage-path": self._storage, "--log-level": "WARNING",
                   "--oplog-max-entries": 5_000_000, "--oplog-retention-seconds": 86_400,
                   "--noop-heartbeat-seconds": 5}  # fmt: skip
        arguments = [str(word) for option in options.items() for word in option]
        arguments += self._options
        self._process = subprocess.Popen([program, *arguments], stderr=subprocess.DEVNULL)  # noqa: S603
        deadline = time.monotonic() + WAIT
        with MongoClient[Any](self.url) as client:
            while True:
                try:
                    client.admin.command("ping")
                    return
                except PyMongoError:
                    if time.monotonic() > deadline:
                        raise

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        self._process.send_signal(how)
        self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("database"))
    yield server
    server.kill()


@pytest.fixture
def mortal_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be killed."""
    server = Server(tmp_path)
    yield server
    server.kill()


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Database]:
    client: AsyncIOMotorClient[Any] = AsyncIOMotorClient(server.url)
    database = client.get_database(f"test_{ObjectId()}", codec_options=CODEC)
    for name in ("posts", "comments"):
        await database.create_collection(name, changeStreamPreAndPostImages={"enabled": True})
    try:
        yield database
    finally:
        client.close()


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    async with connected(server) as database:
        yield database


class Reader:
    """Tails in the background and keeps what comes."""

    def __init__(self, stream: ChangeStream) -> None:
        self.stream = stream
        self.batches: list[list[Entry]] = []
        self._arrived = asyncio.Condition()

    @property
    def entries(self) -> list[Entry]:
        return [entry for batch in self.batches for entry in batch]

    @property
    def documents(self) -> list[Change | Reset]:
        return [entry for entry in self.entries if not isinstance(entry, Beat)]

    @property
    def changes(self) -> list[Change]:
        return [entry for entry in self.entries if isinstance(entry, Change)]

    async def run(self) -> None:
        async with contextlib.aclosing(self.stream.batches()) as batches:
            async for batch in batches:
                async with self._arrived:
                    self.batches.append(batch)
                    self._arrived.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT), self._arrived:
            await self._arrived.wait_for(condition)


@contextlib.asynccontextmanager
async def reading(
    database: Database, live: tuple[str, ...] = ("posts", "comments"), checkpoint: Checkpoint | None = None
) -> AsyncIterator[Reader]:
    """A running reader; without a checkpoint, one that has seen a first heartbeat."""
    reader = Reader(ChangeStream(database, live, checkpoint))
    task = asyncio.create_task(reader.run())
    try:
        if checkpoint is None:
            async with asyncio.timeout(WAIT):
                while not reader.stream.connected:  # noqa: ASYNC110 - the stream announces it to nobody
                    await asyncio.sleep(0.001)
            await Heartbeat(database).poke()
            await reader.until(lambda: bool(reader.entries))
        yield reader
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def caught_up(database: Database, reader: Reader) -> None:
    """Everything written before this call has been read."""
    before = sum(isinstance(entry, Beat) for entry in reader.entries)
    await Heartbeat(database).poke()
    await reader.until(lambda: sum(isinstance(entry, Beat) for entry in reader.entries) > before)


async def transaction(database: Database, *writes: Callable[[Any], Awaitable[Any]]) -> None:
    async with await database.client.start_session() as session, session.start_transaction():
        for write in writes:
            await write(session)


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


class Unreadable(TypeDecoder):
    """Stands for what Python cannot represent, such as a date in the year 10,000, which MongoDB stores."""

    bson_type = Regex

    def transform_bson(self, value: Any) -> Any:
        raise ValueError(f"cannot decode {value!r}")


async def test_a_document_that_cannot_be_decoded_resets_its_collection(database: Database) -> None:
    """It spoils one event and neither its batch nor the feed."""
    codec = CODEC.with_options(type_registry=TypeRegistry([Unreadable()]))
    async with reading(database.client.get_database(database.name, codec_options=codec)) as reader:
        await database.posts.insert_many([{"_id": 1}, {"_id": 2, "x": [Regex("a")]}, {"_id": 3}])
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
        async with asyncio.timeout(WAIT):
            while not (again.stream.histories_lost and again.stream.connected):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        await Heartbeat(database).poke()
        await again.until(lambda: bool(again.entries))
    reset = again.entries[0]
    assert isinstance(reset, Reset)
    assert (reset.collections, reset.reason, reset.position.ordinal) == (None, ResetReason.HISTORY_LOST, 0)


@pytest.fixture
def durable_server(tmp_path: Path) -> Iterator[Server]:
    """One that writes each commit to disk, as MongoDB does before it reports a change."""
    server = Server(tmp_path, "--sync-on-commit")
    yield server
    server.kill()


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


names = st.sampled_from(["a", "b", "c", "0", "1"])
scalars = st.one_of(st.integers(-5, 5), st.text("xy", max_size=2), st.none(), st.booleans(), st.just(Int64(7)))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)
paths = st.lists(names, min_size=1, max_size=3).map(".".join).filter(lambda path: path[0] not in "01")
updates = st.one_of(
    st.dictionaries(paths, values, min_size=1, max_size=3).map(lambda fields: {"$set": fields}),
    st.lists(paths, min_size=1, max_size=3).map(lambda fields: {"$unset": dict.fromkeys(fields, "")}),
    st.tuples(paths, st.lists(values, max_size=3), st.integers(-3, 3)).map(
        lambda push: {"$push": {push[0]: {"$each": push[1], "$slice": push[2]}}}
    ),
    st.tuples(paths, values).map(lambda push: {"$push": {push[0]: push[1]}}),
    st.tuples(paths, st.sampled_from([1, -1])).map(lambda pop: {"$pop": {pop[0]: pop[1]}}),
    st.tuples(paths, st.integers(-3, 3)).map(lambda inc: {"$inc": {inc[0]: inc[1]}}),
    st.tuples(paths, paths).map(lambda rename: {"$rename": {rename[0]: rename[1]}}),
    st.tuples(st.sampled_from("abc"), st.integers(0, 2)).map(
        lambda cut: [
            {
                "$set": {
                    cut[0]: {
                        "$cond": [
                            {"$isArray": "$" + cut[0]},
                            {
                                "$firstN": {
                                    "n": cut[1] + 1,
                                    "input": {"$cond": [{"$isArray": "$" + cut[0]}, "$" + cut[0], []]},
                                }
                            },
                            "$" + cut[0],
                        ]
                    }
                }
            }
        ]
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from("abc"), values, max_size=3), st.lists(updates, min_size=1, max_size=8))
def test_images_after_random_updates_are_what_was_stored(
    server: Server, document: dict[str, Any], steps: list[Any]
) -> None:
    """A shadow copy to which each reported difference is applied equals the document after each update."""
    name = f"random_{random.getrandbits(64):x}"
    with MongoClient[Any](server.url) as client:
        collection = client[name].create_collection("posts", changeStreamPreAndPostImages={"enabled": True})
        collection.insert_one({"_id": 1, **document})
        shadow = collection.find_one({"_id": 1})
        options: dict[str, Any] = {
            "full_document_before_change": "whenAvailable",
            "show_expanded_events": True,
        }
        with client[name].watch(**options, max_await_time_ms=500) as stream:
            for step in steps:
                try:
                    modified = collection.update_one({"_id": 1}, step).modified_count
                except OperationFailure:
                    continue  # an update that the server refuses, such as $push to a number
                stored = collection.find_one({"_id": 1})
                if not modified:
                    assert stored == shadow
                    continue
                event = stream.next()
                assert event["fullDocumentBeforeChange"] == shadow
                shadow = apply_update(event["fullDocumentBeforeChange"], event["updateDescription"])
                assert shadow == stored, (step, event)
        client.drop_database(name)


async def test_checkpoints_are_found_by_position(database: Database) -> None:
    """The last one at or before a position, the latest of all, and none before the first."""
    checkpoints = Checkpoints(database, interval=dt.timedelta())
    await checkpoints.install()
    await checkpoints.install()
    assert await checkpoints.latest() is None
    stored = [
        Checkpoint(Position.of(Timestamp(10, 1), 1), {"_data": "a"}),
        Checkpoint(Position.of(Timestamp(10, 1), 4), {"_data": "b"}),
        Checkpoint(Position.of(Timestamp(11, 0), 2), {"_data": "c"}),
    ]
    for checkpoint in [*stored, stored[1]]:
        assert await checkpoints.save(checkpoint)
    assert await checkpoints.latest() == stored[2]
    assert await checkpoints.at_or_before(Position.of(Timestamp(10, 1), 0)) is None
    assert await checkpoints.at_or_before(Position.of(Timestamp(10, 1), 3)) == stored[0]
    assert await checkpoints.at_or_before(stored[1].position) == stored[1]
    assert await checkpoints.at_or_before(Position.end_of(Timestamp(10, 9))) == stored[1]
    assert await database["headwater_checkpoints"].count_documents({}) == 3


async def test_checkpoints_are_saved_once_a_second(database: Database) -> None:
    """Saving after each batch costs one write a second."""
    checkpoints = Checkpoints(database, interval=dt.timedelta(hours=1))
    assert await checkpoints.save(Checkpoint(Position(1 << 32, 1), {"_data": "a"}))
    assert not await checkpoints.save(Checkpoint(Position(2 << 32, 1), {"_data": "b"}))
    latest = await checkpoints.latest()
    assert latest is not None
    assert latest.token == {"_data": "a"}


async def test_checkpoints_expire_with_the_window(database: Database) -> None:
    """The index that removes old ones has a name, and follows the setting."""
    for hours in (24, 48):
        await Checkpoints(database, window=dt.timedelta(hours=hours)).install()
        indexes = await database["headwater_checkpoints"].index_information()
        assert indexes["expiry"]["expireAfterSeconds"] == hours * 3600


async def test_a_stream_starts_from_a_stored_checkpoint(database: Database) -> None:
    """Tokens survive being stored."""
    checkpoints = Checkpoints(database)
    async with reading(database) as reader:
        await checkpoints.save(reader.entries[-1].checkpoint)
        await database.posts.insert_one({"_id": 1})
        await caught_up(database, reader)
    stored = await checkpoints.latest()
    assert stored is not None
    async with reading(database, checkpoint=stored) as again:
        await again.until(lambda: len(again.entries) >= 2)
        assert again.entries == reader.entries[1:]


async def test_pokes_at_once_share_a_write_and_a_later_one_gets_its_own(database: Database) -> None:
    """A poke during a write waits for the one after it, because that write may have been sent too early."""
    heartbeat = Heartbeat(database)
    await asyncio.gather(*(heartbeat.poke() for _ in range(50)))
    assert heartbeat.beats == 1
    first = asyncio.create_task(heartbeat.poke())
    # Two turns of the loop: the task of the poke, then the task of its write, which so is under way.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.gather(first, *(heartbeat.poke() for _ in range(50)))
    assert heartbeat.beats == 3


class WritesUnderWay(CommandListener):
    """Counts the updates that have been sent and not answered."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "update":
            self.now += 1
            self.most = max(self.most, self.now)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self.now -= event.command_name == "update"

    def failed(self, event: CommandFailedEvent) -> None:
        self.now -= event.command_name == "update"


async def test_pokes_never_have_two_writes_under_way(server: Server) -> None:
    """However they come, a slow database is not flooded with heartbeats."""
    writes = WritesUnderWay()
    client: AsyncIOMotorClient[Any] = AsyncIOMotorClient(server.url, event_listeners=[writes])
    heartbeat = Heartbeat(client[f"test_{ObjectId()}"])
    pokes = []
    for _ in range(200):
        pokes.append(asyncio.create_task(heartbeat.poke()))
        await asyncio.sleep(0)
    await asyncio.gather(*pokes)
    client.close()
    assert writes.most == 1
    assert 2 <= heartbeat.beats < 200


async def test_a_cancelled_poke_does_not_cancel_the_others(database: Database) -> None:
    """The write belongs to all who wait for it."""
    heartbeat = Heartbeat(database)
    impatient, patient = asyncio.create_task(heartbeat.poke()), asyncio.create_task(heartbeat.poke())
    await asyncio.sleep(0)
    impatient.cancel()
    await patient
    assert heartbeat.beats == 1
    assert impatient.cancelled()


async def test_the_heartbeat_moves_a_quiet_feed_and_survives_an_outage(mortal_server: Server) -> None:
    """Beats come without any other write, and again after the server was away."""
    async with connected(mortal_server) as database, reading(database) as reader:
        heartbeat = Heartbeat(database, interval=dt.timedelta(milliseconds=20))
        task = asyncio.create_task(heartbeat.run())
        try:
            await reader.until(lambda: len(reader.entries) >= 5)
            assert reader.stream.lag is not None
            await asyncio.to_thread(mortal_server.kill)
            with pytest.raises(DatabaseAway):
                await heartbeat.poke()
            await asyncio.to_thread(mortal_server.start)
            before = len(reader.entries)
            await reader.until(lambda: len(reader.entries) >= before + 5)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    assert reader.changes == []
