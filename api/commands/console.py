"""What every command needs: words to its user, the settings, and the database of a running server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import typer

from api.settings import IN_MEMORY, Settings, SettingsRefused, load_settings
from documents import Database, DatabaseAway, DatabaseRefused, EmbeddedDatabase, Registry, bind_classes, open_database


def say(text: str) -> None:
    """Print a line to the command's user."""
    typer.echo(text)


def refuse(error: Exception) -> typer.Exit:
    """Say what keeps the command from running, a line for each fault."""
    for line in str(error).splitlines():
        typer.echo(f"headwater: {line}", err=True)
    return typer.Exit(1)


def settings_or_exit() -> Settings:
    """The settings; leaves the program with what is wrong with them."""
    try:
        return load_settings()
    except SettingsRefused as error:
        raise refuse(error) from None


@contextlib.asynccontextmanager
async def served_database(settings: Settings) -> AsyncIterator[tuple[Database, Registry]]:
    """The database of a server that runs already, and the classes bound to it.

    Raises DatabaseAway, DatabaseRefused and DeclarationError.
    """
    registry = Registry.load(settings.documents)
    database = await _open(settings)
    try:
        await bind_classes(database, registry)
        yield database, registry
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def database_at_hand(settings: Settings) -> AsyncIterator[tuple[Database, Registry]]:
    """The same whether a server runs or not: an embedded database is started for as long as it is needed."""
    registry = Registry.load(settings.documents)
    async with contextlib.AsyncExitStack() as stack:
        database = await _open_or_start(stack, settings)
        stack.push_async_callback(database.close)
        await bind_classes(database, registry)
        yield database, registry


async def _open_or_start(stack: contextlib.AsyncExitStack, settings: Settings) -> Database:
    try:
        return await _open(settings)
    except DatabaseAway:
        if not settings.embedded:
            raise
    embedded = EmbeddedDatabase(settings.data_dir, settings.embedded_port)
    stack.push_async_callback(embedded.stop)
    return await open_database(await embedded.start(), settings.database)


async def _open(settings: Settings) -> Database:
    url = settings.mongodb_url.get_secret_value()
    if url == IN_MEMORY:
        raise DatabaseRefused("HEADWATER_MONGODB_URL: other programs cannot reach a database in the server's memory")
    if not settings.embedded:
        return await open_database(url, settings.database)
    try:
        # Only its address: the server is the one that starts it.
        url = EmbeddedDatabase(settings.data_dir, settings.embedded_port).url
        return await open_database(url, settings.database)
    except DatabaseAway:
        message = f"start the server first: make run (no database answers on port {settings.embedded_port})"
        raise DatabaseAway(message) from None
