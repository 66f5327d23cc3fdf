"""`doctor`: whether a running server keeps its promise, and what to do where it does not."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import signal
from typing import Annotated

import typer

from api.commands.console import refuse, say, served_database, settings_or_exit
from api.doctor import Check, Doctor, Tell
from api.settings import Settings
from documents import DatabaseAway, DatabaseRefused, DocumentsError

#: What a shell says of a program that Ctrl-C or SIGTERM has ended.
_INTERRUPTED = 130


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    url: Annotated[str, typer.Option(help="Where clients connect, if the settings do not say.")] = "",
    seconds: Annotated[float, typer.Option(min=1, max=300, help="How long a change may take to a client.")] = 10,
) -> None:
    """Examine a running server, with its settings: database, images, Redis, clocks, feed, and each worker.

    Exit code 1 when anything is not well. Writes a user named doctor-… with sessions, and takes them away again.
    """
    settings = settings_or_exit()
    made: list[Check] = []

    def tell(check: Check) -> None:
        made.append(check)
        if not as_json:
            say(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.message}")
            if not check.ok and check.remedy:
                say(f"      {check.remedy}.")

    try:
        healthy = asyncio.run(_stoppable(settings, url or settings.address, dt.timedelta(seconds=seconds), tell))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(_INTERRUPTED) from None
    except DocumentsError as error:
        raise refuse(error) from None
    if as_json:
        say(json.dumps({"ok": healthy, "checks": [dataclasses.asdict(check) for check in made]}, indent=2))
    elif healthy:
        say("All is well.")
    raise typer.Exit(0 if healthy else 1)


async def _stoppable(settings: Settings, url: str, patience: dt.timedelta, tell: Tell) -> bool:
    # Whoever stops the command lets it take its canary away.
    examining = asyncio.ensure_future(_examined(settings, url, patience, tell))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, examining.cancel)
    return await examining


async def _examined(settings: Settings, url: str, patience: dt.timedelta, tell: Tell) -> bool:
    async with contextlib.AsyncExitStack() as stack:
        try:
            database, registry = await stack.enter_async_context(served_database(settings))
        except (DatabaseAway, DatabaseRefused) as error:
            tell(Check("database", False, str(error), "Start it, or mend HEADWATER_MONGODB_URL"))
            return False
        return await Doctor(settings, database, registry, url, tell, patience).examine()
