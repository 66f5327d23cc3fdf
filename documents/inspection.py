"""Stored documents that break the rules of their class, found and counted by the database itself.

Older versions of a class leave them, and people in mongosh where validators only warn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from documents.database import Database, driver_errors
from documents.public import public_id
from documents.resources import Registry, ResourceClass
from documents.validators import json_schema


@dataclass(frozen=True, slots=True)
class BrokenCount:
    """How many documents of a collection break the rules, and the ids of the first ones."""

    collection: str
    count: int
    ids: tuple[str, ...]


def breaking(resource: ResourceClass) -> dict[str, Any]:
    """The filter that matches the documents which break the rules of `resource`."""
    return {"$nor": [{"$jsonSchema": json_schema(resource)}]}


async def count_broken(database: Database, registry: Registry, *, ids: int) -> list[BrokenCount]:
    """The collections with documents that break the rules, in the order of the classes. Reads every document."""
    found = []
    for resource in registry:
        collection = database.collection(resource.name)
        with driver_errors():
            count = await collection.count_documents(breaking(resource))
            first = await collection.find(breaking(resource), {"_id": 1}).limit(ids).to_list(ids) if count else []
        if count:
            found.append(BrokenCount(resource.name, count, tuple(public_id(stored["_id"]) for stored in first)))
    return found
