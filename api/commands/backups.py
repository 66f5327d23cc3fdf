"""`export` and `import`: the whole database, or some of its resources, as files that a person can read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from api.commands.console import database_at_hand, refuse, say, settings_or_exit
from api.settings import Settings
from documents import (
    BackupRefused,
    DocumentsError,
    Folder,
    Manifest,
    Progress,
    abandon_import,
    export_backup,
    import_backup,
    install,
    with_contents,
)

T = TypeVar("T")

_Resources = Annotated[
    list[str] | None,
    typer.Option("--resource", help="Only this one, by its collection's name; may be given several times."),
]


def export(
    folder: Annotated[Path, typer.Argument(help="Made if it is not there; an export that was interrupted goes on.")],
    resource: _Resources = None,
) -> None:
    """Write the database to a folder: for each collection a file of canonical extended JSON, one document a line.

    The files hold all secrets of the database. They are for their owner alone; keep it so.
    """
    settings = settings_or_exit()
    manifest = _run(_export(settings, folder, resource), "export")
    say(f"{_summary(manifest, resource)} of {manifest.name} are in {folder}.")


async def _export(settings: Settings, folder: Path, resources: list[str] | None) -> Manifest:
    async with database_at_hand(settings) as (database, _):
        with _progress() as on_progress:
            chosen = with_contents(resources) if resources else None
            return await export_backup(database, Folder(folder), chosen, on_progress)


def import_(
    folder: Annotated[Path | None, typer.Argument(help="What `export` has written.", show_default=False)] = None,
    resource: _Resources = None,
    overwrite: Annotated[
        bool, typer.Option(help="Into collections that have documents: those of the same _id are replaced.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give up an import that has not ended. What it has written stays.")
    ] = False,
) -> None:
    """Put an export into the database, byte for byte. After an interruption the same import goes on.

    Until it has, no server starts on that database. Indexes and validators come from the document classes.
    """
    if (folder is None) != abandon:
        raise typer.BadParameter("either the folder of an export, or --abandon")
    settings = settings_or_exit()
    if folder is None:
        _run(_abandon(settings), "command")
        say(f"The import into {settings.database} is given up. What it has written is there.")
        return
    manifest = _run(_import(settings, folder, resource, overwrite=overwrite), "import")
    say(f"{_summary(manifest, resource)} are in {settings.database}.")


async def _import(settings: Settings, folder: Path, resources: list[str] | None, *, overwrite: bool) -> Manifest:
    async with database_at_hand(settings) as (database, registry):
        # First, so that a unique index refuses a line rather than a start of the server later on.
        await install(database, registry, settings.schema_action)
        with _progress() as on_progress:
            chosen = with_contents(resources) if resources else None
            return await import_backup(database, Folder(folder), chosen, on_progress, overwrite=overwrite)


async def _abandon(settings: Settings) -> None:
    async with database_at_hand(settings) as (database, _):
        await abandon_import(database)


def _run(work: Coroutine[None, None, T], name: str) -> T:
    try:
        return asyncio.run(work)
    except DocumentsError as error:
        raise refuse(error) from None
    except KeyboardInterrupt:
        raise refuse(BackupRefused(f"interrupted; the same {name} goes on where it was")) from None


def _summary(manifest: Manifest, resources: list[str] | None) -> str:
    names = with_contents(resources) if resources else manifest.collections
    documents = sum(manifest.parts[name].documents for name in names)
    return f"{documents} documents of {len(names)} collections"


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each collection, on a terminal; elsewhere nothing."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Bars(*columns, console=(console := Console(stderr=True)), disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(collection: str, done: int, total: int) -> None:
            if collection not in tasks:
                tasks[collection] = bars.add_task(collection)
            bars.update(tasks[collection], completed=done, total=total)

        yield show
