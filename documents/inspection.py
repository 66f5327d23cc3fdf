"""Stored documents that break the rules of their class: found, counted and explained by the database itself.

Older versions of a class leave them, and people in mongosh where validators only warn. Values stay in the database:
what is told of a document is its id, the names of its fields, and which rules they break.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from documents.codec import Stored, decoded
from documents.database import Database, driver_errors
from documents.public import public_id, public_value
from documents.resources import Registry, ResourceClass
from documents.validators import json_schema

#: Documents that are explained together: each rule that some of them break costs one query.
_BATCH = 200

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenCount:
    """How many documents of a collection break the rules, and the ids of the first ones."""

    collection: str
    count: int
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule that a document breaks. `field` is a stored path, with `[]` for items of an array and `*` for keys."""

    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class BrokenDocument:
    """A document, and all that is wrong with it."""

    collection: str
    id: str
    breaches: list[Breach] = field(default_factory=list)


def breaking(schema: Schema) -> dict[str, Any]:
    """The filter that matches the documents which do not keep to `schema`."""
    return {"$nor": [{"$jsonSchema": schema}]}


async def count_broken(database: Database, registry: Registry, *, ids: int) -> list[BrokenCount]:
    """The collections with documents that break the rules, in the order of the classes. Reads every document."""
    found = []
    for resource in registry:
        collection, broken = database.readable(resource.name), breaking(json_schema(resource))
        with driver_errors():
            count = await collection.count_documents(broken)
            first = await collection.find(broken, {"_id": 1}).limit(ids).to_list(ids) if count else []
        if count:
            found.append(
                BrokenCount(
                    resource.name, count, tuple(public_id(decoded(one)["_id"], resource.id_kind) for one in first)
                )
            )
    return found


async def broken_documents(database: Database, resource: ResourceClass) -> AsyncIterator[BrokenDocument]:
    """The documents that break the rules of `resource`, with reasons. Reads every document; bounded in memory."""
    names = {"$map": {"input": {"$objectToArray": "$$ROOT"}, "in": "$$this.k"}}
    pipeline = [{"$match": breaking(json_schema(resource))}, {"$project": {"names": names}}]
    with driver_errors():
        batch: list[Stored] = []
        async for stored in database.readable(resource.name).aggregate(pipeline):
            batch.append(decoded(stored))
            if len(batch) == _BATCH:
                for document in await _explained(database, resource, batch):
                    yield document
                batch = []
        for document in await _explained(database, resource, batch):
            yield document


async def _explained(database: Database, resource: ResourceClass, batch: Sequence[Stored]) -> list[BrokenDocument]:
    found = {
        public_id(stored["_id"], resource.id_kind): BrokenDocument(
            resource.name, public_id(stored["_id"], resource.id_kind)
        )
        for stored in batch
    }
    collection = database.readable(resource.name)

    async def failing(ids: Sequence[Any], schema: Schema) -> list[Any]:
        selected = collection.find({"_id": {"$in": list(ids)}, **breaking(schema)}, {"_id": 1})
        return [decoded(stored)["_id"] async for stored in selected]

    async def judge(ids: Sequence[Any], schema: Schema, path: str, within: Callable[[Schema], Schema]) -> None:
        """Note what these documents break of `schema`, which stands at `path`: `within(rules)` are rules there."""
        ids = await failing(ids, within(schema))
        if not ids:
            return
        prefix = f"{path}." if path else ""
        declared: dict[str, Schema] = {name: {} for name in schema.get("properties", ())}
        for keyword, demand in schema.items():
            if keyword == "properties":
                for name, rules in demand.items():
                    await judge(ids, rules, prefix + name, _in_property(within, name))
            elif keyword == "items":
                await judge(ids, demand, f"{path}[]", _in_items(within))
            elif keyword == "additionalProperties" and isinstance(demand, Mapping):
                await judge(ids, demand, f"{prefix}*", _in_others(within))
            elif keyword == "required":
                for name in demand:
                    for document_id in await failing(ids, within({"required": [name]})):
                        found[public_id(document_id, resource.id_kind)].breaches.append(
                            Breach(prefix + name, "it is missing")
                        )
            elif keyword == "additionalProperties" and path:
                rules = {"properties": declared, "additionalProperties": False}
                for document_id in await failing(ids, within(rules)):
                    reason = "it has fields that nobody declared"
                    found[public_id(document_id, resource.id_kind)].breaches.append(Breach(path, reason))
            elif keyword in _REASONS:
                flag = f"exclusive{keyword.capitalize()}"
                rules = {name: schema[name] for name in (keyword, flag) if name in schema}
                reason = (_EXCLUSIVE if schema.get(flag) else _REASONS)[keyword].format(_shown(demand))
                for document_id in await failing(ids, within(rules)):
                    found[public_id(document_id, resource.id_kind)].breaches.append(Breach(path, reason))

    for stored in batch:
        undeclared = [name for name in stored["names"] if name not in resource.fields]
        found[public_id(stored["_id"], resource.id_kind)].breaches.extend(
            Breach(name, "there is no such field") for name in undeclared
        )
    if batch:
        await judge([stored["_id"] for stored in batch], json_schema(resource), "", lambda rules: rules)
    # Who repaired one meanwhile has none left.
    return [document for document in found.values() if document.breaches]


def _in_property(within: Callable[[Schema], Schema], name: str) -> Callable[[Schema], Schema]:
    return lambda rules: within({"properties": {name: rules}})


def _in_items(within: Callable[[Schema], Schema]) -> Callable[[Schema], Schema]:
    return lambda rules: within({"items": rules})


def _in_others(within: Callable[[Schema], Schema]) -> Callable[[Schema], Schema]:
    # Of a map, which declares no fields.
    return lambda rules: within({"additionalProperties": rules})


_REASONS = {
    "bsonType": "its type is not {}",
    "enum": "it is not one of {}",
    "minLength": "it is shorter than {}",
    "maxLength": "it is longer than {}",
    "minItems": "it has fewer items than {}",
    "maxItems": "it has more items than {}",
    "minProperties": "it has fewer keys than {}",
    "maxProperties": "it has more keys than {}",
    "minimum": "it is below {}",
    "maximum": "it is above {}",
    "multipleOf": "it is not a multiple of {}",
    "pattern": "it does not match {}",
    "uniqueItems": "it holds a value twice",
    "anyOf": "it fits none of the alternatives",
}

_EXCLUSIVE = {"minimum": "it is not above {}", "maximum": "it is not below {}"}


def _shown(demand: Any) -> str:
    if isinstance(demand, list):
        return ", ".join(map(_shown, demand))
    return str(public_value(demand))
