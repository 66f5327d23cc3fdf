"""What differs between the classes and the database: collections, validators, images, options and indexes.

Read only. What `documents.schema.install` would settle is marked as such; it never drops an index or a collection, so
the rest is for a person to decide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pymongo import IndexModel
from pymongo.errors import OperationFailure

from documents.codec import Stored
from documents.contents import METADATA, bucket_indexes
from documents.database import Database, driver_errors
from documents.public import public_value, rfc3339
from documents.resources import Registry, ResourceClass
from documents.schema import IMAGES, LEVEL, SchemaAction
from documents.validators import json_schema

DifferenceKind = Literal["collection", "validator", "images", "option", "index"]

_UNAUTHORIZED = 13
#: Options that say how a collection is stored and not how it behaves, besides those that are compared.
_INDIFFERENT = frozenset(
    {"validator", "validationLevel", "validationAction", IMAGES, "storageEngine", "indexOptionDefaults", "autoIndexId"}
)
_NOT_COMPARED = frozenset({"v", "ns", "name", "key", "background", "textIndexVersion", "2dsphereIndexVersion"})
_MAX_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the classes say.

    `name` is the field's path, the index or the option; empty where it is the whole. `message` says in words what
    differs; `settled_by_apply`, whether installing the schema changes it.
    """

    collection: str
    kind: DifferenceKind
    name: str
    message: str
    settled_by_apply: bool


async def differences(database: Database, registry: Registry, action: SchemaAction) -> list[Difference]:
    """All that differs, in the order of the classes. With the action `off`, validators are not compared."""
    with driver_errors():
        cursor = await database.raw.list_collections()
        stored = {str(entry["name"]): entry async for entry in cursor}
    found: list[Difference] = []
    for resource in registry:
        entry = stored.get(resource.name)
        if (unfit := _unfit(resource.name, entry)) is not None:
            found.append(unfit)
            continue
        options = (entry or {}).get("options", {})
        found += _images(resource.name, options)
        if action != "off":
            found += _validator(resource, options, action)
        found += _options(resource.name, options)
        found += await _indexes(database, resource.name, resource.indexes)
    if registry.get(METADATA) is not None:
        for name, indexes in bucket_indexes().items():
            if (unfit := _unfit(name, stored.get(name))) is not None:
                found.append(unfit)
            else:
                found += await _indexes(database, name, indexes)
    return found


def _unfit(name: str, entry: Mapping[str, Any] | None) -> Difference | None:
    if entry is None:
        return Difference(name, "collection", "", "the collection does not exist", settled_by_apply=True)
    kind = entry.get("type", "collection")
    kind = "timeseries" if "timeseries" in entry.get("options", {}) else kind
    if kind != "collection":
        message = f"this is a {kind}, where a collection is wanted: rename or drop it"
        return Difference(name, "collection", "", message, settled_by_apply=False)
    return None


def _images(name: str, options: Mapping[str, Any]) -> Iterator[Difference]:
    if not options.get(IMAGES, {}).get("enabled"):
        message = "the images before changes are off, without which the feed cannot tell what a change did"
        yield Difference(name, "images", IMAGES, message, settled_by_apply=True)


def _options(name: str, options: Mapping[str, Any]) -> Iterator[Difference]:
    for option, value in options.items():
        if option not in _INDIFFERENT:
            message = f"the collection was created with {option}: {_shown(value)}, which only creating it anew changes"
            yield Difference(name, "option", option, message, settled_by_apply=False)


def _validator(resource: ResourceClass, options: Mapping[str, Any], action: SchemaAction) -> Iterator[Difference]:
    def differs(name: str, message: str) -> Difference:
        return Difference(resource.name, "validator", name, message, settled_by_apply=True)

    validator = options.get("validator") or {}
    if not validator:
        yield differs("", "there is no validator")
        return
    for operator in validator:
        if operator != "$jsonSchema":
            yield differs(operator, f"the validator has a condition on {operator}, which the class does not have")
    for path, message in _rules(validator.get("$jsonSchema") or {}, json_schema(resource), ""):
        yield differs(path, message)
    for option, wanted in (("validationLevel", LEVEL), ("validationAction", action)):
        # MongoDB does not list them where they were never set.
        held = options.get(option, "strict" if option == "validationLevel" else "error")
        if held != wanted:
            yield differs(option, f"{option} is {held} in the database and {wanted} here")


def _rules(held: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Where two schemas differ, as paths and words, the outermost difference only."""
    for keyword in [*wanted, *(keyword for keyword in held if keyword not in wanted)]:
        old, new = held.get(keyword), wanted.get(keyword)
        if old == new:
            continue
        if keyword == "properties":
            yield from _fields(old or {}, new or {}, path)
        elif keyword == "required":
            yield from _required(old or (), new or (), path)
        elif keyword in _BELOW and isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _rules(old, new, path + _BELOW[keyword])
        else:
            of_database = "not set" if keyword not in held else _shown(old)
            of_class = "not set" if keyword not in wanted else _shown(new)
            yield path, f"{keyword} is {of_database} in the database and {of_class} in the class"


_BELOW = {"items": "[]", "additionalProperties": ".*"}


def _fields(held: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    prefix = f"{path}." if path else ""
    for name, rules in wanted.items():
        if name not in held:
            yield prefix + name, "the rules in the database do not have the field"
        else:
            yield from _rules(held[name], rules, prefix + name)
    for name in held:
        if name not in wanted:
            yield prefix + name, "the rules in the database have the field, the class has not"


def _required(held: Sequence[str], wanted: Sequence[str], path: str) -> Iterator[tuple[str, str]]:
    prefix = f"{path}." if path else ""
    for name in wanted:
        if name not in held:
            yield prefix + name, "the class requires the field, the database does not"
    for name in held:
        if name not in wanted:
            yield prefix + name, "the database requires the field, the class does not"


async def _indexes(database: Database, name: str, models: Iterable[IndexModel]) -> list[Difference]:
    wanted = {model.document["name"]: dict(model.document) for model in models}
    with driver_errors():
        held = {index["name"]: dict(index) async for index in database.raw[name].list_indexes()}
    held.pop("_id_", None)
    found = [
        difference
        for index_name, index in wanted.items()
        if (difference := _declared_index(name, index_name, index, held)) is not None
    ]
    others = [index_name for index_name in held if index_name not in wanted]
    usage = await _usage(database, name) if others else {}
    for index_name in others:
        message = f"the index on {_keys(held[index_name])} is declared by no class" + usage.get(index_name, "")
        found.append(Difference(name, "index", index_name, message, settled_by_apply=False))
    return found


def _declared_index(
    name: str, index_name: str, wanted: Mapping[str, Any], held: Mapping[str, Mapping[str, Any]]
) -> Difference | None:
    if (index := held.get(index_name)) is None:
        twins = [other for other, index in held.items() if same_index(index, wanted)]
        if twins:
            message = f"the index on {_keys(wanted)} has another name, {twins[0]}: drop that one, and apply"
        else:
            message = f"the index on {_keys(wanted)} is missing"
        return Difference(name, "index", index_name, message, settled_by_apply=not twins)
    if same_index(index, wanted):
        return None
    of_database, of_class = (f"{_keys(found)}{_extras(found)}" for found in (index, wanted))
    message = f"the index is on {of_database} in the database and on {of_class} in the class: drop it, and apply"
    return Difference(name, "index", index_name, message, settled_by_apply=False)


def same_index(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an index as the server lists it is the one that was asked for, names apart."""
    if _key_of(held) != _key_of(wanted):
        return False
    old, new = _options_of(held), _options_of(wanted)
    # The server completes a collation with its defaults.
    old_collation, new_collation = old.pop("collation", {}), new.pop("collation", {})
    if bool(old_collation) != bool(new_collation):
        return False
    return old == new and all(old_collation.get(name) == value for name, value in new_collation.items())


def _key_of(index: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The index's fields in order. The server lists the texts of a text index apart, with their weights."""
    pairs = list(index["key"].items())
    texts = [name for name, kind in pairs if kind == "text" and name != "_fts"]
    weights = dict.fromkeys(texts, 1) | dict(index.get("weights", {}))
    if not weights:
        return pairs
    plain = [(name, kind) for name, kind in pairs if kind != "text" and name != "_ftsx"]
    return [*plain, *sorted((name, ("text", weight)) for name, weight in weights.items())]


def _options_of(index: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {"weights", "default_language", "language_override"} if "weights" in index else set()
    return {k: v for k, v in index.items() if k not in _NOT_COMPARED | left_out and v is not False}


def _keys(index: Mapping[str, Any]) -> str:
    return f"({', '.join(f'{name} {direction}' for name, direction in index['key'].items())})"


def _extras(index: Mapping[str, Any]) -> str:
    extras = _options_of(index)
    return f" with {_shown(extras)}" if extras else ""


async def _usage(database: Database, name: str) -> dict[str, str]:
    """How often each index has been used, in words; nothing where we may not ask."""
    uses: dict[str, int] = {}
    since: dict[str, Any] = {}
    with driver_errors():
        try:
            # One row for each index and each server of a cluster.
            async for row in database.raw[name].aggregate([{"$indexStats": {}}]):
                accesses: Stored = row.get("accesses") or {}
                uses[row["name"]] = uses.get(row["name"], 0) + int(accesses.get("ops", 0))
                since.setdefault(row["name"], accesses.get("since"))
        except OperationFailure as error:
            if error.code == _UNAUTHORIZED:
                return {}
            raise
    told = {index: f" since {rfc3339(moment)}" if moment is not None else "" for index, moment in since.items()}
    return {
        index: f", and not used{told[index]}" if count == 0 else f", and used {count} times{told[index]}"
        for index, count in uses.items()
    }


def _shown(value: Any) -> str:
    text = json.dumps(public_value(value), ensure_ascii=False, sort_keys=True, default=str)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
