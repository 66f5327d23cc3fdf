"""What an operator has to know of the database: which it is, whether it can be followed, and whose clock is wrong."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from documents.checkpoints import Checkpoints
from documents.database import Database, driver_errors
from documents.opening import live_collections
from documents.resources import Registry, utc_now
from documents.schema import IMAGES


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """The server that answers. `ahead` is how far its clock is ahead of ours."""

    version: str
    topology: str
    writable: bool
    ahead: dt.timedelta


async def database_state(database: Database) -> DatabaseState:
    """Ask the server. Raises DatabaseAway."""
    with driver_errors():
        build = await database.raw.command("buildInfo")
        asked = utc_now()
        hello = await database.raw.command("hello")
        answered = utc_now()
    sharded = hello.get("msg") == "isdbgrid"
    middle = asked + (answered - asked) / 2
    return DatabaseState(
        version=str(build.get("version", "?")),
        topology="sharded cluster" if sharded else f"replica set {hello.get('setName', '?')}",
        writable=sharded or bool(hello.get("isWritablePrimary")),
        ahead=_aware(hello["localTime"]) - middle,
    )


async def collections_without_images(database: Database, registry: Registry) -> list[str]:
    """The live collections that are absent, or whose changes come without the document before them."""
    with driver_errors():
        cursor = await database.raw.list_collections()
        options: dict[str, Any] = {str(entry["name"]): entry.get("options", {}) async for entry in cursor}
    return sorted(
        name for name in live_collections(registry) if not options.get(name, {}).get(IMAGES, {}).get("enabled", False)
    )


async def checkpoint_age(database: Database, ahead: dt.timedelta) -> dt.timedelta | None:
    """How long ago the newest change was that a worker has dealt with and noted; None when none was ever.

    The heartbeat changes something each second, so more than a few seconds is a feed that stands still. `ahead` is how
    far the server's clock is ahead.
    """
    newest = await Checkpoints(database.raw).latest()
    return None if newest is None else utc_now() + ahead - newest.position.timestamp.as_datetime()


def _aware(time: dt.datetime) -> dt.datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=dt.UTC)
