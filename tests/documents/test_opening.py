"""Opening a database that goes away before the classes are bound to it."""

from __future__ import annotations

import random
from urllib.parse import urlsplit

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from documents import (
    DatabaseAway,
    DatabaseRefused,
    MongoDatabase,
    Registry,
    bind_classes,
    open_database,
    refuse_without_changes,
)
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


async def test_database_whose_changes_cannot_be_followed(mongodb_url: str, database_name: str) -> None:
    """Is refused in one line; a feed would ask again and again. MongoDB answers as much to a user without the right."""
    database = await open_database(mongodb_url, database_name)
    await refuse_without_changes(database)
    await database.close()
    # A name that no server has: 64 characters and more.
    impossible = MongoDatabase(AsyncIOMotorClient(mongodb_url), "a" * 70)
    with pytest.raises(DatabaseRefused, match=r"^the changes of the database a{70} cannot be followed: \w") as caught:
        await refuse_without_changes(impossible)
    assert "full error" not in str(caught.value)
    await impossible.close()


@pytest.mark.parametrize(
    "url",
    [
        "mongodb+srv://nothing.invalid",
        "mongodb://localhost/?tls=true&tlsCAFile=/nothing.pem",
        f"mongodb://localhost/?tls=true&tlsCertificateKeyFile={__file__}",
        "mongodb://name:pass/word@localhost",
        "mongodb://name:pass:word@localhost",
        "mongodb://name:start/pass/word@localhost:27017/?replicaSet=rs0",
        "mongodb://name:start/pass-word@localhost:27017/?replicaSet=rs0",
        "mongodb://name:start/pass/word@db.example.org/",
        "mongodb://name:start@pass:word@localhost/",
    ],
)
async def test_url_that_cannot_be_used(url: str) -> None:
    """A name that does not exist, files that are not there or not keys: one line, without the password."""
    with pytest.raises(DatabaseRefused, match=r"^HEADWATER_MONGODB_URL is not usable: ") as caught:
        await open_database(url, "headwater")
    assert "pass/" not in str(caught.value)
    assert "pass" not in str(caught.value).replace("password", "")
    assert "\n" not in str(caught.value)
