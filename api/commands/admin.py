"""`admin create`: an admin made on the server's own machine."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from api.administration import AdminRefused, create_admin
from api.commands.console import refuse, say, served_database, settings_or_exit
from api.settings import Settings
from documents import DocumentsError, install

admin = typer.Typer(no_args_is_help=True, help="Admins of a server.")


@admin.command("create")
def create(
    email: Annotated[str, typer.Option(help="Where mail is sent.")],
    username: Annotated[str, typer.Option(help="Shown to other users.")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from the first line of standard input.")
    ] = False,
) -> None:
    """Create an admin. Asks for the password, twice."""
    settings = settings_or_exit()
    if password_stdin:
        # Not an argument, which every user of the machine could read.
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    try:
        asyncio.run(_create(settings, username, email, password))
    except (AdminRefused, DocumentsError) as error:
        raise refuse(error) from None
    say(f"{username} is an admin.")


async def _create(settings: Settings, username: str, email: str, password: str) -> None:
    async with served_database(settings) as (database, registry):
        # The unique indexes are what refuses a name that is taken, also before the first start of a server.
        await install(database, registry, settings.schema_action)
        await create_admin(database, registry, settings, username, email, password)
