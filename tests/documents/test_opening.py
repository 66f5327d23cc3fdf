"""Opening a database that goes away before the classes are bound to it."""

from __future__ import annotations

import random
from urllib.parse import urlsplit

import pytest

from documents import DatabaseAway, Registry, bind_classes, open_database
from tests.chaos.proxy import Proxy


async def test_database_goes_away_while_a_server_starts(mongodb_url: str, database_name: str) -> None:
    """Binding the classes says that the database is away, which a start is refused with in one line."""
    address = urlsplit(mongodb_url)
    proxy = Proxy(address.port or 27017, random.Random(1))  # noqa: S311 - nothing here is left to chance
    await proxy.start()
    database = await open_database(
        f"mongodb://127.0.0.1:{proxy.port}/?retryWrites=false&directConnection=true", database_name
    )
    try:
        proxy.refusing = True
        proxy.cut()
        with pytest.raises(DatabaseAway):
            await bind_classes(database, Registry.load(["documents.models"]))
    finally:
        await database.close()
        await proxy.stop()
