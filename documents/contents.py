"""The bytes of files, in the GridFS bucket `files`: `files.files` says how long a content is, `files.chunks` holds it.

A content and its metadata (the document in `files`) have the same `_id`. So GridFS tools read it:
`mongofiles --prefix files get_id ...`. https://github.com/mongodb/specifications/blob/master/source/gridfs/gridfs-spec.md

The driver's own GridFS classes are not used: on the way in they hold up to 48 MB of chunks in memory before they send
any, on the way out they hold a cursor for as long as the slowest client reads, and an upload that is cancelled goes on
in its thread.

Bytes that no metadata speaks of (an upload under way, or a file whose metadata has just been deleted) are listed in
`headwater_unfinished` beforehand, by ids, with a sign of life each minute. What a killed server leaves is so found
without looking through all chunks, and nothing is ever removed that somebody else stored in the bucket.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Final, TypeVar

from bson import ObjectId
from pymongo import IndexModel
from pymongo.errors import OperationFailure

from documents.codec import Stored
from documents.content_types import HEAD_BYTES
from documents.database import Database, driver_errors
from documents.errors import ContentLost, DatabaseAway, DatabaseRefused, DocumentsError

logger = logging.getLogger(__name__)

METADATA: Final = "files"
LENGTHS: Final = "files.files"
CHUNKS: Final = "files.chunks"
UNFINISHED: Final = "headwater_unfinished"

#: GridFS's own default.
CHUNK_BYTES: Final = 255 * 1024
#: Read at once. No cursor stays open between reads, so a slow client costs the database nothing.
WINDOW_CHUNKS: Final = 4

SIGN_OF_LIFE: Final = dt.timedelta(minutes=1)
#: Without a sign of life for this long, an upload's server is taken for dead. Servers' clocks differ by far less.
DEAD_AFTER: Final = dt.timedelta(hours=1)
SWEEP_INTERVAL: Final = dt.timedelta(minutes=10)

_T = TypeVar("_T")


class Contents:
    """The bucket of one database. All methods raise DatabaseAway when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unfinished = database.latest(UNFINISHED)

    async def announce(self, *file_ids: ObjectId) -> Unfinished:
        """List contents as unfinished, before the first byte is stored or the metadata is deleted."""
        unfinished = Unfinished(self._database)
        with driver_errors():
            await self._unfinished.insert_one({"_id": unfinished.id, "file_ids": list(file_ids), "alive_at": _now()})
        return unfinished

    async def length(self, file_id: Any) -> tuple[int, int]:
        """Length and chunk size of a content, in bytes. Raises ContentLost when it is not there."""
        with driver_errors():
            found = await self._database.collection(LENGTHS).find_one({"_id": file_id})
        # Somebody may have written it by hand, with whole numbers as doubles as mongosh does.
        size, chunk = (found or {}).get("length"), (found or {}).get("chunkSize")
        if not isinstance(size, int | float) or not isinstance(chunk, int | float) or size < 0 or chunk < 1:
            raise ContentLost(f"file {file_id} has no content")
        return int(size), int(chunk)

    async def read(self, file_id: Any, start: int, stop: int, chunk_bytes: int) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `stop`, in order, at most a chunk at a time.

        Raises ContentLost when the content is deleted meanwhile, or lacks some of them: never yields less in silence.
        """
        chunks = self._database.collection(CHUNKS)
        number, last = start // chunk_bytes, (stop - 1) // chunk_bytes
        while start < stop:
            until = min(number + WINDOW_CHUNKS, last + 1)
            with driver_errors():
                window = (
                    await chunks.find({"files_id": file_id, "n": {"$gte": number, "$lt": until}})
                    .sort("n", 1)
                    .limit(WINDOW_CHUNKS)
                    .to_list(WINDOW_CHUNKS)
                )
            if len(window) < until - number:
                raise ContentLost(f"file {file_id} lacks some of its content from byte {start}")
            for chunk in window:
                first = number * chunk_bytes
                data = chunk.get("data")
                wanted = data[start - first : stop - first] if isinstance(data, bytes) else b""
                expected = min(stop, first + chunk_bytes) - start
                if chunk.get("n") != number or len(wanted) != expected:
                    raise ContentLost(f"file {file_id} lacks some of its content from byte {start}")
                yield wanted
                start += expected
                number += 1

    async def remove(self, file_ids: Sequence[ObjectId]) -> None:
        """Delete contents. What is not there is no fault."""
        # Lengths first, so that no GridFS tool sees a content that lacks chunks.
        with driver_errors():
            await self._database.latest(LENGTHS).delete_many({"_id": {"$in": list(file_ids)}})
            await self._database.latest(CHUNKS).delete_many({"files_id": {"$in": list(file_ids)}})

    async def sweep(self) -> int:
        """Remove what uploads and deletions left whose server died; returns how many contents those were.

        Safe in several processes at once, and while others upload: an upload that has been swept cannot commit.
        """
        removed = 0
        with driver_errors():
            dead = await self._unfinished.find({"alive_at": {"$lt": _now() - DEAD_AFTER}}).to_list(1_000)
            for left in dead:
                same = {"_id": left["_id"], "alive_at": left["alive_at"]}
                if not (await self._unfinished.update_one(same, {"$set": {"swept_at": _now()}})).matched_count:
                    continue  # it lives after all
                listed = [file_id for file_id in left.get("file_ids", []) if isinstance(file_id, ObjectId)]
                # Only after the mark: from then on no metadata can be added to them.
                kept = self._database.latest(METADATA).find({"_id": {"$in": listed}}, {"_id": 1})
                finished = {found["_id"] for found in await kept.to_list(None)}
                orphans = [file_id for file_id in listed if file_id not in finished]
                await self.remove(orphans)
                await self._unfinished.delete_one({"_id": left["_id"]})
                removed += len(orphans)
        return removed

    async def run(self) -> None:
        """Sweep now and then, until cancelled. What fails is logged and tried again."""
        while True:
            try:
                if removed := await self.sweep():
                    logger.warning("removed the contents of %d unfinished uploads or deletions", removed)
            except DocumentsError as error:
                logger.warning("the sweep of unfinished uploads failed: %s", error)
            except Exception:
                # Whatever it is, the next turn may succeed; uploads that stay for ever must not go unnoticed.
                logger.exception("the sweep of unfinished uploads failed")
            await asyncio.sleep(SWEEP_INTERVAL.total_seconds())


class Unfinished:
    """The list entry of one upload or deletion."""

    def __init__(self, database: Database) -> None:
        self.id = ObjectId()
        self._entries = database.latest(UNFINISHED)
        self._due = _clock() + SIGN_OF_LIFE.total_seconds()

    async def add(self, file_id: ObjectId) -> None:
        """List one more content. Raises DatabaseAway as `renew` does."""
        await self._update({"$push": {"file_ids": file_id}, "$set": {"alive_at": _now()}})

    async def stay_alive(self) -> None:
        """Give a sign of life when the last one was a minute ago."""
        if _clock() >= self._due:
            await self.renew()

    async def renew(self) -> None:
        """Give a sign of life. Raises DatabaseAway when it comes too late: the contents are being removed."""
        await self._update({"$set": {"alive_at": _now()}})

    async def finish(self) -> None:
        """The contents have metadata, or are gone."""
        with driver_errors():
            await self._entries.delete_one({"_id": self.id})

    async def _update(self, update: dict[str, Any]) -> None:
        with driver_errors():
            result = await self._entries.update_one({"_id": self.id, "swept_at": {"$exists": False}}, update)
        if not result.matched_count:
            raise DatabaseAway("the upload took too long")
        self._due = _clock() + SIGN_OF_LIFE.total_seconds()


class Upload:
    """One content on its way in. Holds at most a chunk and what the last `write` brought."""

    def __init__(self, database: Database, unfinished: Unfinished) -> None:
        self.id = ObjectId()
        self.size = 0
        #: Its first bytes, for finding its type.
        self.head = b""
        self._database = database
        self._unfinished = unfinished
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self._chunks = 0
        self._writing: asyncio.Future[Any] | None = None

    @property
    def sha256(self) -> str:
        """Of what came so far, in hexadecimal."""
        return self._hash.hexdigest()

    async def write(self, data: bytes) -> None:
        """Take more bytes; returns when all full chunks are stored, so the client is read no faster than they are."""
        self.size += len(data)
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
        self._hash.update(data)
        self._buffer += data
        while len(self._buffer) >= CHUNK_BYTES:
            chunk = bytes(self._buffer[:CHUNK_BYTES])
            del self._buffer[:CHUNK_BYTES]
            await self._store(chunk)
        await self._unfinished.stay_alive()

    async def finish(self, filename: str) -> None:
        """Store what is left, and the length, which makes the content complete. Nothing may be written after it."""
        if self._buffer:
            await self._store(bytes(self._buffer))
            self._buffer.clear()
        length: Stored = {
            "_id": self.id,
            "length": self.size,
            "chunkSize": CHUNK_BYTES,
            "uploadDate": _now(),
            "filename": filename,
        }
        await self._settled(self._database.latest(LENGTHS).insert_one(length))

    async def settle(self) -> bool:
        """Wait until no write is under way. False when one failed, and may yet reach the server."""
        if self._writing is None:
            return True
        # A cancelled write goes on in its thread: what it stores must be there before it can be removed.
        await asyncio.wait({self._writing})
        return not self._writing.cancelled() and self._writing.exception() is None

    async def _store(self, data: bytes) -> None:
        chunk = {"_id": ObjectId(), "files_id": self.id, "n": self._chunks, "data": data}
        self._chunks += 1
        await self._settled(self._database.latest(CHUNKS).insert_one(chunk))

    async def _settled(self, write: Awaitable[_T]) -> _T:
        writing = asyncio.ensure_future(write)
        self._writing = writing
        with driver_errors():
            return await asyncio.shield(writing)


def bucket_indexes() -> dict[str, list[IndexModel]]:
    """The indexes of the bucket's collections, by the names that drivers give them."""
    return {
        CHUNKS: [IndexModel([("files_id", 1), ("n", 1)], unique=True)],
        LENGTHS: [IndexModel([("filename", 1), ("uploadDate", 1)])],
    }


async def install_bucket(database: Database) -> None:
    """Create the bucket's indexes. Safe to repeat.

    Raises DatabaseRefused when the database will not have them.
    """
    with driver_errors():
        for name, indexes in bucket_indexes().items():
            try:
                await database.raw[name].create_indexes(indexes)
            except OperationFailure as error:
                raise DatabaseRefused(f"{name}: an index cannot be created (error {error.code})") from None


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _clock() -> float:
    return asyncio.get_running_loop().time()
