"""Validators, named indexes and change-stream images: what a class needs in the database, and installing it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, Literal

from pymongo.errors import CollectionInvalid, OperationFailure

from documents.contents import METADATA, install_bucket
from documents.database import Database, driver_errors
from documents.errors import DatabaseAway, DatabaseRefused
from documents.resources import Registry, ResourceClass
from documents.validators import json_schema

SchemaAction = Literal["error", "warn", "off"]

#: The collection option that gives the change stream its images.
IMAGES: Final = "changeStreamPreAndPostImages"
#: Rules hold for every write, also of a document that broke them before.
LEVEL: Final = "strict"

_NAMESPACE_EXISTS = 48
#: Somebody else does the same at this moment, or has just dropped the collection: NamespaceNotFound, LockBusy,
#: WriteConflict, ConflictingOperationInProgress, IndexBuildAborted, IndexBuildAlreadyInProgress and
#: BackgroundOperationInProgressFor{Database,Namespace}.
_CONCURRENT = frozenset({26, 46, 112, 117, 276, 285, 12586, 12587})
#: IndexOptionsConflict and IndexKeySpecsConflict.
_INDEX_CONFLICTS = frozenset({85, 86})
_ATTEMPTS = 20
_PAUSE = dt.timedelta(milliseconds=250)


async def install(database: Database, registry: Registry, action: SchemaAction) -> None:
    """Create or update the collections of all classes: validators, images for the change stream, named indexes.

    Safe while several processes start at once, and safe to repeat. Never drops an index and never touches a document.
    `action` says what the validators do with a write that breaks the rules: refuse it (`error`), log it in the
    server's log (`warn`), or nothing (`off`, which also leaves existing validators alone).
    Raises DatabaseRefused when the database will not have something, with a line for each that names the collection,
    once all the rest is installed; and DatabaseAway.
    """
    refused: list[DatabaseRefused] = []
    for resource in registry:
        try:
            await install_one(database, resource, action)
        except DatabaseRefused as error:
            refused.append(error)
    if registry.get(METADATA) is not None:
        try:
            await install_bucket(database)
        except DatabaseRefused as error:
            refused.append(error)
    if refused:
        raise DatabaseRefused("\n".join(map(str, refused)))


async def install_one(database: Database, resource: ResourceClass, action: SchemaAction) -> None:
    """The same for one class. Used again by the feed when its collection was dropped or renamed."""
    if database.in_memory:
        with driver_errors():
            await _indexes(database, resource)
        return
    options: dict[str, Any] = {IMAGES: {"enabled": True}}
    if action != "off":
        options |= {
            "validator": {"$jsonSchema": json_schema(resource)},
            "validationLevel": LEVEL,
            "validationAction": action,
        }
    with driver_errors():
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await _install(database, resource, options)
                return
            except OperationFailure as error:
                if error.code not in _CONCURRENT:
                    raise DatabaseRefused(
                        f"{resource.name}: the schema cannot be installed ({_message(error)})"
                    ) from None
                if attempt == _ATTEMPTS:
                    raise DatabaseAway(f"{resource.name}: somebody else keeps changing the schema") from None
            await asyncio.sleep(_PAUSE.total_seconds())


async def _install(database: Database, resource: ResourceClass, options: dict[str, Any]) -> None:
    existing = await _options(database, resource.name)
    if existing is None:
        await _create(database, resource.name, options)
    elif not _covers(existing, options):
        await database.raw.command({"collMod": resource.name, **options})
    await _indexes(database, resource)


async def _options(database: Database, name: str) -> Mapping[str, Any] | None:
    cursor = await database.raw.list_collections(filter={"name": name})
    found = await cursor.to_list(1)
    return dict(found[0].get("options", {})) if found else None


def _covers(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    defaults = {"validationLevel": "strict", "validationAction": "error"}
    return all(existing.get(key, defaults.get(key)) == value for key, value in wanted.items())


async def _create(database: Database, name: str, options: dict[str, Any]) -> None:
    try:
        await database.raw.create_collection(name, check_exists=False, **options)
    except (CollectionInvalid, OperationFailure) as error:
        if getattr(error, "code", _NAMESPACE_EXISTS) != _NAMESPACE_EXISTS:
            raise
        # Another process, or a first insert, was faster.
        await database.raw.command({"collMod": name, **options})


async def _indexes(database: Database, resource: ResourceClass) -> None:
    if not resource.indexes:
        return
    collection = database.raw[resource.name]
    with contextlib.suppress(OperationFailure):
        await collection.create_indexes(resource.indexes)
        return
    # One that cannot be created must not keep the others away.
    refused: list[str] = []
    for index in resource.indexes:
        try:
            await collection.create_indexes([index])
        except OperationFailure as error:
            if error.code in _CONCURRENT:
                raise
            refused.append(f"{resource.name}: an index cannot be created ({index.document['name']}: {_reason(error)})")
    if refused:
        raise DatabaseRefused("\n".join(refused))


def _reason(error: OperationFailure) -> str:
    if error.code in _INDEX_CONFLICTS:
        return "another one has its name or its fields, which `schema diff` shows"
    # What a cluster puts before it are the numbers of a build and of a collection.
    return _message(error).rsplit(":: caused by :: ", 1)[-1]


def _message(error: Exception) -> str:
    details = getattr(error, "details", None) or {}
    return str(details.get("errmsg") or error).split(", full error")[0]
