"""A database in this process's memory, for fast unit tests (`mongomock://`).

mongomock has neither change streams nor validators nor transactions. So here, and only here, the store's own writes
feed the changes. Nothing that another program does can be seen, and nothing is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import datetime as dt
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, cast

from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase

from documents.changes import Beat, Change, ChangeKind, Entry
from documents.codec import Stored
from documents.database import Session
from documents.errors import DatabaseRefused, Duplicate
from documents.pools import PoolUse
from documents.positions import Position

#: What a change counts for in a history's bound; the size of an image in memory is not worth measuring in tests.
_NOMINAL_BYTES = 1_000


class MemoryDatabase:
    """Implements `documents.database.Database` on mongomock, and is its own source of changes and heartbeat."""

    in_memory = True

    def __init__(self, name: str) -> None:
        try:
            from mongomock_motor import AsyncMongoMockClient
        except ModuleNotFoundError:
            raise DatabaseRefused("mongomock:// needs the test extra: pip install 'headwater[test]'") from None
        self.name = name
        self.id = uuid.uuid4().hex
        self.connected = True
        self._raw: AsyncIOMotorDatabase[Stored] = AsyncMongoMockClient(tz_aware=True)[name]
        self._writing = asyncio.Lock()
        self._entries: asyncio.Queue[Entry] = asyncio.Queue()
        self._last = int(time.time()) << 32

    @property
    def raw(self) -> AsyncIOMotorDatabase[Stored]:
        return self._raw

    def collection(self, name: str) -> AsyncIOMotorCollection[Stored]:
        return self._raw[name]

    def latest(self, name: str) -> AsyncIOMotorCollection[Stored]:
        return self._raw[name]

    def readable(self, name: str, *, latest: bool = False) -> AsyncIOMotorCollection[Mapping[str, Any]]:  # noqa: ARG002
        # The generic type is invariant; nobody writes here.
        return cast("AsyncIOMotorCollection[Mapping[str, Any]]", self._raw[name])

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        yield None

    def position(self, session: Session) -> Position:  # noqa: ARG002 - there is one order of all writes
        return Position(self._last, 2**32 - 1)

    async def insert(self, name: str, document: Stored, session: Session) -> None:  # noqa: ARG002 - no sessions here
        async with self._writing:
            if await self._raw[name].find_one({"_id": document["_id"]}) is not None:
                raise Duplicate(["id"])  # mongomock does not say which index it was
            await self._raw[name].insert_one(copy.deepcopy(document))
            self._emit(ChangeKind.INSERT, name, None, document)

    async def insert_together(self, name: str, documents: Sequence[Stored], session: Session) -> None:
        if await self._raw[name].find_one({"_id": {"$in": [document["_id"] for document in documents]}}) is not None:
            raise Duplicate(["id"])
        for document in documents:
            await self.insert(name, document, session)

    async def replace_if_unchanged(
        self,
        name: str,
        read: Stored,
        new: Stored,
        session: Session,  # noqa: ARG002 - no sessions here
        *,
        unvalidated: bool = False,  # noqa: ARG002 - nor validators
    ) -> bool:
        async with self._writing:
            if await self._raw[name].find_one({"_id": read["_id"]}) != read:
                return False
            await self._raw[name].replace_one({"_id": read["_id"]}, copy.deepcopy(new))
            self._emit(ChangeKind.REPLACE, name, read, new)
            return True

    async def delete_if_unchanged(self, name: str, read: Stored, session: Session) -> bool:  # noqa: ARG002
        async with self._writing:
            if await self._raw[name].find_one({"_id": read["_id"]}) != read:
                return False
            await self._raw[name].delete_one({"_id": read["_id"]})
            self._emit(ChangeKind.DELETE, name, read, None)
            return True

    @property
    def pool(self) -> PoolUse:
        return PoolUse()

    async def ping(self) -> None:
        """Memory always answers."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def poke(self) -> None:
        """Put a heartbeat into the changes (`realtime.feed.Heart`)."""
        self._entries.put_nowait(Beat(self._next(), {}, _now()))

    async def batches(self) -> AsyncGenerator[Sequence[Entry], None]:
        """The changes as they are made (`realtime.feed.Source`)."""
        while True:
            yield [await self._entries.get()]

    def _next(self) -> Position:
        self._last = max(self._last + 1, int(time.time()) << 32)
        return Position(self._last, 1)

    def _emit(self, kind: ChangeKind, name: str, before: Stored | None, after: Stored | None) -> None:
        document_id = (after or before or {})["_id"]
        change = Change(
            position=self._next(),
            token={},
            at=_now(),
            size=_NOMINAL_BYTES,
            kind=kind,
            collection=name,
            document_id=document_id,
            before=copy.deepcopy(before),
            after=copy.deepcopy(after),
        )
        self._entries.put_nowait(change)


def _now() -> dt.datetime:
    now: Any = dt.datetime.now(dt.UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)  # type: ignore[no-any-return]
