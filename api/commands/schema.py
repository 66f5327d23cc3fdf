"""`schema diff`, `schema apply` and `schema check`: the classes' rules, and what the database has instead."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from api.commands.console import refuse, say, served_database, settings_or_exit
from api.settings import Settings
from documents import (
    BrokenCount,
    BrokenDocument,
    DatabaseRefused,
    Difference,
    DocumentsError,
    broken_documents,
    count_broken,
    differences,
    install,
)

#: How many documents that break the rules are named for each collection.
_NAMED = 5

schema = typer.Typer(no_args_is_help=True, help="What the classes want of the database, and what it has.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@schema.command("diff")
def diff(as_json: AsJson = False) -> None:
    """Say what differs between the classes and the database, and change nothing.

    Exit code 1 when something differs. Also counts the documents that break the rules, which reads all of them.
    """
    settings = settings_or_exit()
    try:
        found, broken = asyncio.run(_compared(settings))
    except DocumentsError as error:
        raise refuse(error) from None
    if as_json:
        _say_json(
            {"differences": list(map(dataclasses.asdict, found)), "broken": list(map(dataclasses.asdict, broken))}
        )
    else:
        _say_differences(found, settings)
        _say_broken(broken)
    raise typer.Exit(1 if found else 0)


async def _compared(settings: Settings) -> tuple[list[Difference], list[BrokenCount]]:
    async with served_database(settings) as (database, registry):
        return (
            await differences(database, registry, settings.schema_action),
            await count_broken(database, registry, ids=_NAMED),
        )


@schema.command("apply")
def apply(as_json: AsJson = False) -> None:
    """Make the database what the classes want: validators, images, options and missing indexes.

    Safe beside running servers and beside itself. Nothing is ever dropped: what only a person can settle is left, and
    said. Exit code 1 when the database refused something.
    """
    settings = settings_or_exit()
    try:
        settled, left, refused = asyncio.run(_applied(settings))
    except DocumentsError as error:
        raise refuse(error) from None
    if as_json:
        _say_json(
            {
                "settled": list(map(dataclasses.asdict, settled)),
                "left": list(map(dataclasses.asdict, left)),
                "refused": str(refused).splitlines() if refused else [],
            }
        )
    else:
        say(f"{_number(len(settled), 'difference')} settled.")
        if left:
            say("Left for you to settle:")
            _say_each(left)
    if refused:
        raise refuse(refused)


async def _applied(settings: Settings) -> tuple[list[Difference], list[Difference], DatabaseRefused | None]:
    """What was settled, what is left, and what the database refused on the way."""
    async with served_database(settings) as (database, registry):
        before = await differences(database, registry, settings.schema_action)
        refused = None
        try:
            await install(database, registry, settings.schema_action)
        except DatabaseRefused as error:
            refused = error
        left = await differences(database, registry, settings.schema_action)
        return [difference for difference in before if difference not in left], left, refused


@schema.command("check")
def check(
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=0, help="How many documents of each class to name; 0: all.")] = 100,
) -> None:
    """Name the documents that break the rules of their class, and say why. Reads all documents.

    Exit code 1 when there are any.
    """
    settings = settings_or_exit()
    try:
        named, count = asyncio.run(_checked(settings, limit, as_json))
    except DocumentsError as error:
        raise refuse(error) from None
    if as_json:
        _say_json({"count": count, "documents": list(map(dataclasses.asdict, named))})
    elif count == 0:
        say("No document breaks the rules.")
    else:
        say(f"{_number(count, 'document')} {'breaks' if count == 1 else 'break'} the rules.")
    raise typer.Exit(1 if count else 0)


async def _checked(settings: Settings, limit: int, as_json: bool) -> tuple[list[BrokenDocument], int]:
    """The documents to print as JSON; otherwise they are printed as they are found. And how many there are."""
    kept: list[BrokenDocument] = []
    count = 0
    async with served_database(settings) as (database, registry):
        for resource in registry:
            of_class = 0
            async for document in broken_documents(database, resource):
                of_class += 1
                if limit and of_class > limit:
                    continue
                if as_json:
                    kept.append(document)
                    continue
                say(f"{document.collection} {_printable(document.id)}")
                for breach in document.breaches:
                    say(f"  {_printable(breach.field)}: {breach.reason}")
            if limit and of_class > limit and not as_json:
                say(f"{resource.name}: {of_class - limit} more")
            count += of_class
    return kept, count


def _say_differences(found: Sequence[Difference], settings: Settings) -> None:
    if not found:
        say("The database is as the classes want it.")
    else:
        _say_each(found)
        settled = sum(difference.settled_by_apply for difference in found)
        say(f"{_number(len(found), 'difference')}; `schema apply` settles {settled} of them.")
    if settings.schema_action == "off":
        say("Validators were not compared: HEADWATER_SCHEMA_ACTION is off.")


def _say_each(found: Sequence[Difference]) -> None:
    for collection, group in itertools.groupby(found, lambda difference: difference.collection):
        say(collection)
        for difference in group:
            name = f" {difference.name}" if difference.name else ""
            say(f"  {difference.kind}{name}: {difference.message}")


def _say_broken(broken: Sequence[BrokenCount]) -> None:
    for entry in broken:
        more = ", …" if entry.count > len(entry.ids) else ""
        breaks = "breaks" if entry.count == 1 else "break"
        say(f"{entry.collection}: {_number(entry.count, 'document')} {breaks} the rules: {', '.join(entry.ids)}{more}")
    if broken:
        say("`schema check` says why.")


def _printable(name: str) -> str:
    """A name as it is, but where a terminal would hide it or take it for a command."""
    return name if name and name.isprintable() else json.dumps(name)


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _say_json(content: Any) -> None:
    say(json.dumps(content, ensure_ascii=False, indent=2))
