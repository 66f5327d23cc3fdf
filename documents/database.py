"""The connection to MongoDB: opening it, telling what kind of server it is, and the few writes that are special.

Every call of the driver goes through `driver_errors`, so that no driver exception leaves `documents/`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import re
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

from bson import Timestamp
from motor.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorClientSession,
    AsyncIOMotorCollection,
    AsyncIOMotorDatabase,
)
from pymongo import ReturnDocument
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from documents.codec import CODEC, RAW_CODEC, Stored
from documents.errors import DatabaseAway, DatabaseRefused, DocumentsError, Duplicate, QueryTooSlow
from documents.pools import PoolCounts, PoolUse
from documents.positions import Position
from documents.unchanged import unchanged

Session = AsyncIOMotorClientSession | None

MAJORITY = WriteConcern("majority", wtimeout=10_000)
_TRANSACTION_ATTEMPTS = 5
SERVER_SELECTION_TIMEOUT = dt.timedelta(seconds=4)

#: Codes of a server that is shutting down, stepping down or otherwise cannot answer right now.
#: 43 and 237 are cursors that were lost or killed meanwhile, 112 is a write conflict, 133 and 134 a shard without a
#: primary or majority; 175 and 11601 are queries that somebody killed, 215 is a database that is being dropped.
_AWAY_CODES = frozenset(
    {
        *(6, 7, 43, 64, 89, 91, 112, 133, 134, 175, 189, 202, 215, 237, 262, 317, 358, 384),
        *(9001, 10107, 11600, 11601, 11602, 13435, 13436),
    }
)

#: Labels of what may succeed when it is done again.
_PASSING = ("RetryableWriteError", "TransientTransactionError", "UnknownTransactionCommitResult")

_STANDALONE = (
    "the MongoDB server at {place} is a standalone, which has no change streams. Make it a one-node replica set: "
    "start mongod with `--replSet rs0`, then run `rs.initiate()` once in mongosh"
)


@contextlib.contextmanager
def driver_errors() -> Iterator[None]:
    """Raise this folder's exceptions in place of the driver's (see `documents.errors`)."""
    try:
        yield
    except DuplicateKeyError as error:
        raise Duplicate(_index_fields(error)) from None
    except (ServerSelectionTimeoutError, AutoReconnect, ConnectionFailure, WaitQueueTimeoutError) as error:
        raise DatabaseAway(f"the database does not answer ({type(error).__name__})") from error
    except ExecutionTimeout as error:
        raise QueryTooSlow("the query was stopped at its time limit") from error
    except OperationFailure as error:
        if error.code in _AWAY_CODES or any(map(error.has_error_label, _PASSING)):
            raise DatabaseAway(f"the database cannot answer now (error {error.code})") from error
        raise


def _unless_quoting(url: str, message: object) -> str:
    """What the driver says of a URL, unless it may take a part of the password for a host, a database or an option."""
    userinfo, at, _ = url.partition("://")[2].rpartition("@")
    if at and (userinfo.count(":") > 1 or re.search(r"[/?#@\[\]]", userinfo)):
        return "in the user name and the password : / ? # [ ] @ and % must be percent-encoded (RFC 3986, 2.1)"
    return str(message)


def _index_fields(error: DuplicateKeyError) -> list[str]:
    pattern = (error.details or {}).get("keyPattern") or {}
    return ["id" if name == "_id" else name for name in pattern]


class Database(Protocol):
    """A database as the rest of this folder needs it. Implemented for MongoDB here and in memory for tests."""

    name: str
    id: str
    in_memory: bool

    @property
    def raw(self) -> AsyncIOMotorDatabase[Stored]:
        """The Motor database (or its in-memory stand-in)."""

    def collection(self, name: str) -> AsyncIOMotorCollection[Stored]:
        """A collection for reads that must see all that was acknowledged (read concern majority, primary)."""

    def latest(self, name: str) -> AsyncIOMotorCollection[Stored]:
        """A collection for writes and for reads that a conditional write follows (read concern local, primary)."""

    def readable(self, name: str, *, latest: bool = False) -> AsyncIOMotorCollection[Mapping[str, Any]]:
        """As `collection`, or as `latest`, for reads alone: whatever a document holds, it comes, to be `decoded`."""

    def session(self) -> contextlib.AbstractAsyncContextManager[Session]:
        """A causally consistent session."""

    def position(self, session: Session) -> Position:
        """The position that everything read or written in `session` so far reflects at least."""

    async def insert(self, name: str, document: Stored, session: Session) -> None:
        """Insert one document; raises Duplicate."""

    async def insert_together(self, name: str, documents: Sequence[Stored], session: Session) -> None:
        """Insert all of the documents, or none; raises Duplicate."""

    async def replace_if_unchanged(
        self, name: str, read: Stored, new: Stored, session: Session, *, unvalidated: bool = False
    ) -> bool:
        """Replace the document if it still is exactly `read`. False when it is not.

        `unvalidated` lets the collection's validator pass over it.
        """

    async def delete_if_unchanged(self, name: str, read: Stored, session: Session) -> bool:
        """Delete the document if it still is exactly `read`. False when it is not."""

    @property
    def pool(self) -> PoolUse:
        """How many connections to the server there are."""

    async def ping(self) -> None:
        """Raises DatabaseAway when the server does not answer."""

    async def close(self) -> None:
        """Close all connections. Nothing may be called afterwards."""


class MongoDatabase:
    """A database on a MongoDB replica set or sharded cluster, or on the embedded server."""

    in_memory = False

    def __init__(self, client: AsyncIOMotorClient[Stored], name: str, pool: PoolCounts | None = None) -> None:
        self.client = client
        self._pool = pool or PoolCounts()
        self.name = name
        self.id = ""
        self._nan_is_itself = True
        self._raw: AsyncIOMotorDatabase[Stored] = client.get_database(
            name, codec_options=CODEC, write_concern=MAJORITY, read_preference=ReadPreference.PRIMARY
        )
        self._majority = self._raw.with_options(read_concern=ReadConcern("majority"))

    @classmethod
    async def connect(cls, url: str, name: str) -> MongoDatabase:
        """Connect and make sure that the server can do what Headwater needs.

        Raises DatabaseRefused for a malformed URL, a wrong password and a standalone server; DatabaseAway when
        nothing answers within a few seconds. Messages never contain the URL's password.
        """
        place = url.rsplit("@", 1)[-1].removeprefix("mongodb://").removeprefix("mongodb+srv://").split("/")[0]
        pool = PoolCounts()
        try:
            client: AsyncIOMotorClient[Stored] = AsyncIOMotorClient(
                url,
                serverSelectionTimeoutMS=int(SERVER_SELECTION_TIMEOUT.total_seconds() * 1000),
                connectTimeoutMS=4_000,
                appname="headwater",
                tz_aware=True,
                event_listeners=[pool],
            )
        except (InvalidURI, ConfigurationError, ValueError, OSError) as error:  # OSError: a file for TLS
            raise DatabaseRefused(f"HEADWATER_MONGODB_URL is not usable: {_unless_quoting(url, error)}") from None
        database = cls(client, name, pool)
        try:
            with driver_errors():
                hello = await client.admin.command("hello")
                if "setName" not in hello and hello.get("msg") != "isdbgrid":
                    raise DatabaseRefused(_STANDALONE.format(place=place))
                database._nan_is_itself = "secantusVersion" not in await client.admin.command("buildInfo")
                database.id = await _database_id(database.latest("headwater_meta"))
        except ConfigurationError as error:  # the names of mongodb+srv:// are looked up only now
            client.close()
            raise DatabaseRefused(f"HEADWATER_MONGODB_URL is not usable: {_unless_quoting(url, error)}") from None
        except OperationFailure as error:
            client.close()
            raise DatabaseRefused(f"the MongoDB server at {place} refuses: {reason_of(error)}") from None
        except DatabaseAway as error:
            client.close()
            # The driver's message goes on with its view of the whole topology.
            cause = str(error.__cause__ or error).split(" (configured")[0].split(", Timeout")[0]
            reason = _unless_quoting(url, cause)
            raise DatabaseAway(f"no MongoDB server answers at {place} ({reason})") from None
        except DocumentsError:
            client.close()
            raise
        return database

    @property
    def raw(self) -> AsyncIOMotorDatabase[Stored]:
        return self._raw

    def collection(self, name: str) -> AsyncIOMotorCollection[Stored]:
        return self._majority[name]

    def latest(self, name: str) -> AsyncIOMotorCollection[Stored]:
        return self._raw[name]

    def readable(self, name: str, *, latest: bool = False) -> AsyncIOMotorCollection[Mapping[str, Any]]:
        collection = self.latest(name) if latest else self.collection(name)
        return cast("AsyncIOMotorCollection[Mapping[str, Any]]", collection.with_options(codec_options=RAW_CODEC))

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        with driver_errors():
            async with await self.client.start_session(causal_consistency=True) as session:
                yield session

    def position(self, session: Session) -> Position:
        # Motor delegates the attribute without its type.
        moment = cast("Timestamp | None", session.operation_time) if session is not None else None
        return Position.end_of(moment) if moment is not None else Position.ZERO

    async def insert(self, name: str, document: Stored, session: Session) -> None:
        await self.latest(name).insert_one(document, session=session)

    async def insert_together(self, name: str, documents: Sequence[Stored], session: Session) -> None:
        if len(documents) == 1 or session is None:
            for document in documents:
                await self.insert(name, document, session)
            return
        for attempt in range(_TRANSACTION_ATTEMPTS):
            try:
                async with session.start_transaction(write_concern=MAJORITY):
                    for document in documents:
                        await self.insert(name, document, session)
            except PyMongoError as error:
                if attempt + 1 == _TRANSACTION_ATTEMPTS or not error.has_error_label("TransientTransactionError"):
                    raise
            else:
                return

    def _unchanged(self, read: Stored) -> dict[str, Any]:
        return unchanged(read, nan_is_itself=self._nan_is_itself)

    async def replace_if_unchanged(
        self, name: str, read: Stored, new: Stored, session: Session, *, unvalidated: bool = False
    ) -> bool:
        result = await self.latest(name).replace_one(
            self._unchanged(read), new, session=session, bypass_document_validation=unvalidated
        )
        return result.matched_count == 1

    async def delete_if_unchanged(self, name: str, read: Stored, session: Session) -> bool:
        result = await self.latest(name).delete_one(self._unchanged(read), session=session)
        return result.deleted_count == 1

    @property
    def pool(self) -> PoolUse:
        return self._pool.use

    async def ping(self) -> None:
        with driver_errors():
            try:
                # The driver waits for a server as long as its selection timeout; health must answer sooner.
                async with asyncio.timeout(2):
                    await self.client.admin.command("ping")
            except TimeoutError:
                raise DatabaseAway("the database does not answer") from None

    async def close(self) -> None:
        self.client.close()


async def _database_id(meta: AsyncIOMotorCollection[Stored]) -> str:
    """The random id that tells this database from every other, restored copies of its past excepted."""
    while True:
        # Several processes may start on an empty database at once: then an upsert can fail on the other's document, or
        # answer without one.
        with contextlib.suppress(DuplicateKeyError):
            document = await meta.find_one_and_update(
                {"_id": "database"},
                {"$setOnInsert": {"database_id": uuid.uuid4().hex, "created_at": dt.datetime.now(dt.UTC)}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            if document is not None:
                return str(document["database_id"])


def reason_of(error: PyMongoError) -> str:
    """What the server says of an error, without the whole of its answer."""
    details = getattr(error, "details", None) or {}
    return str(details.get("errmsg") or error).split(", full error")[0]
