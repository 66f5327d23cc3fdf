"""`$jsonSchema` validators, named indexes and change-stream images: what a class needs in the database.

A person who writes in mongosh meets the same rules as an API client, with a description of each field in the
refusal. https://www.mongodb.com/docs/manual/reference/operator/query/jsonSchema/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from bson import Decimal128
from pymongo.errors import CollectionInvalid, OperationFailure

from documents.contents import METADATA, install_bucket
from documents.database import Database, driver_errors
from documents.errors import DatabaseRefused
from documents.resources import Registry, ResourceClass
from documents.shapes import Field, Fields, FieldType, Kind

SchemaAction = Literal["error", "warn", "off"]

_BSON_TYPES: dict[Kind, list[str]] = {
    Kind.STRING: ["string"],
    Kind.INTEGER: ["int", "long"],
    Kind.NUMBER: ["double", "int", "long"],
    Kind.DECIMAL: ["decimal"],
    Kind.BOOLEAN: ["bool"],
    Kind.DATETIME: ["date"],
    Kind.OBJECT_ID: ["objectId"],
    Kind.UUID: ["binData"],
    Kind.BINARY: ["binData"],
    Kind.OBJECT: ["object"],
    Kind.MAP: ["object"],
    Kind.ARRAY: ["array"],
}
_NAMESPACE_EXISTS = 48

#: Set by the API on each write and not demanded of an admin who writes by hand.
_NOT_DEMANDED = frozenset({"_id", "created_at", "updated_at", "revision"})


def json_schema(resource: ResourceClass) -> dict[str, Any]:
    """The validator of the resource's collection, as the value of `$jsonSchema`."""
    schema = _object(resource.fields)
    schema["title"] = resource.label
    if resource.doc:
        schema["description"] = resource.doc.split("\n\n")[0].replace("\n", " ")
    return schema


def _object(fields: Fields) -> dict[str, Any]:
    schema: dict[str, Any] = {"bsonType": "object"}
    required = [f.name for f in fields.values() if f.required and f.name not in _NOT_DEMANDED]
    if required:  # MongoDB refuses an empty list
        schema["required"] = required
    schema["properties"] = {f.name: _property(f) for f in fields.values()}
    schema["additionalProperties"] = False
    return schema


def _property(field: Field) -> dict[str, Any]:
    schema = _type(field.type)
    schema["title"] = field.title or field.name.removeprefix("_").replace("_", " ")
    if field.description:
        schema["description"] = field.description
    return schema


def _type(field_type: FieldType) -> dict[str, Any]:
    if field_type.kind is Kind.ANY:
        return {}
    if field_type.kind is Kind.UNION:
        alternatives = [_type(alternative) for alternative in field_type.alternatives]
        return {"anyOf": [*alternatives, {"bsonType": "null"}] if field_type.nullable else alternatives}
    names = [*_BSON_TYPES[field_type.kind], *(["null"] if field_type.nullable else [])]
    schema: dict[str, Any] = {"bsonType": names[0] if len(names) == 1 else names}
    if field_type.kind is Kind.OBJECT and field_type.fields is not None:
        schema |= {key: value for key, value in _object(field_type.fields).items() if key != "bsonType"}
    elif field_type.kind is Kind.MAP and field_type.item is not None:
        schema["additionalProperties"] = _type(field_type.item)
    elif field_type.kind is Kind.ARRAY and field_type.item is not None:
        schema["items"] = _type(field_type.item)
    if field_type.choices:
        schema["enum"] = [*field_type.choices, *([None] if field_type.nullable else [])]
    return schema | _limits(field_type.constraints)


#: Shorthands, flags and sets mean another set of characters to MongoDB (PCRE, ASCII) than to pydantic (Rust, Unicode).
_READS_DIFFERENTLY = re.compile(r"\\[wWdDsSbBpPhHvVRXKGQENkg]|\(\?|\[\[|&&|--|~~")


def _limits(constraints: Mapping[str, Any]) -> dict[str, Any]:
    """The constraints that mean the same to MongoDB as to the class. The others hold in the API alone: a validator
    may be wider than the class, never narrower, or it would refuse what the API accepted."""
    limits = dict(constraints)
    for bound, flag in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"), ("multipleOf", "")):
        value = limits.get(bound)
        if isinstance(value, Decimal):
            limits[bound] = Decimal128(value)
        elif bound in limits and not isinstance(value, int | float):  # bounds on times and texts
            del limits[bound]
            limits.pop(flag, None)
    if _READS_DIFFERENTLY.search(limits.get("pattern", "")):
        del limits["pattern"]
    return limits


async def install(database: Database, registry: Registry, action: SchemaAction) -> None:
    """Create or update the collections of all classes: validators, images for the change stream, named indexes.

    Safe while several processes start at once, and safe to repeat. Never drops an index and never touches a document.
    `action` says what the validators do with a write that breaks the rules: refuse it (`error`), log it in the
    server's log (`warn`), or nothing (`off`, which also leaves existing validators alone).
    Raises DatabaseRefused, naming the collection, when the database will not have it.
    """
    for resource in registry:
        await install_one(database, resource, action)
    if registry.get(METADATA) is not None:
        await install_bucket(database)


async def install_one(database: Database, resource: ResourceClass, action: SchemaAction) -> None:
    """The same for one class. Used again by the feed when its collection was dropped or renamed."""
    if database.in_memory:
        await _indexes(database, resource)
        return
    options: dict[str, Any] = {"changeStreamPreAndPostImages": {"enabled": True}}
    if action != "off":
        options |= {
            "validator": {"$jsonSchema": json_schema(resource)},
            "validationLevel": "strict",
            "validationAction": action,
        }
    with driver_errors():
        try:
            existing = await _options(database, resource.name)
            if existing is None:
                await _create(database, resource.name, options)
            elif not _covers(existing, options):
                await database.raw.command({"collMod": resource.name, **options})
        except OperationFailure as error:
            raise DatabaseRefused(f"{resource.name}: the validator cannot be installed ({_message(error)})") from None
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
    with driver_errors():
        try:
            await database.raw[resource.name].create_indexes(resource.indexes)
        except OperationFailure as error:
            raise DatabaseRefused(f"{resource.name}: an index cannot be created ({_message(error)})") from None


def _message(error: Exception) -> str:
    details = getattr(error, "details", None) or {}
    return str(details.get("errmsg") or error).split(", full error")[0]
