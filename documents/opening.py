"""Opening a database by its URL and binding the document classes to it."""

from __future__ import annotations

from beanie import init_beanie
from pymongo.errors import OperationFailure

from documents.database import Database, MongoDatabase, driver_errors, reason_of
from documents.errors import DatabaseRefused
from documents.memory import MemoryDatabase
from documents.resources import Registry
from documents.streams import ServerStreams

MEMORY_URL = "mongomock://"


async def open_database(url: str, name: str) -> Database:
    """Connect to the database `name` at `url`. Raises DatabaseRefused and DatabaseAway."""
    if url == MEMORY_URL:
        return MemoryDatabase(name)
    return await MongoDatabase.connect(url, name)


async def bind_classes(database: Database, registry: Registry) -> None:
    """Bind the document classes to `database`. Beanie allows one database per process: the last one holds.

    Raises DatabaseAway: Beanie asks the server for its version.
    """
    with driver_errors():
        await init_beanie(
            database=database.raw,
            document_models=[resource.document_class for resource in registry],
            # Indexes are created by `documents.schema`, which names the collection in its errors.
            skip_indexes=True,
        )


async def refuse_without_changes(database: Database) -> None:
    """Raises DatabaseRefused when this user may not follow the database's changes, and DatabaseAway.

    A feed would try for ever: while the database is only away, that is right.
    """
    if database.in_memory:
        return
    try:
        with driver_errors():
            cursor = await ServerStreams(database.raw).open(None)
    except OperationFailure as error:
        raise DatabaseRefused(
            f"the changes of the database {database.name} cannot be followed: {reason_of(error)}"
        ) from None
    await cursor.close()


def live_collections(registry: Registry) -> frozenset[str]:
    """The collections whose changes are followed."""
    return frozenset(resource.name for resource in registry if resource.declared.live)
