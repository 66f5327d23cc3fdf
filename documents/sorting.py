"""Sort orders: parsing, MongoDB's order of values in Python, and the condition that continues a list (keyset).

MongoDB orders values of different types by type first (BSON comparison order). Snapshots are sorted again here after
changes were worked in, and cursors must continue over null, missing and mixed types, so both follow that order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson import Binary, Code, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp

from documents.errors import Fault, FilterRefused
from documents.shapes import Fields, FieldType, Kind


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key: the stored, dotted path and its direction."""

    path: str
    descending: bool


Sort = tuple[SortKey, ...]

#: The order where the client asks for none: by id, which for ObjectIds is roughly the order of creation.
BY_ID: Sort = (SortKey("_id", False),)


def parse_sort(names: Sequence[str], fields: Fields, *, loc: tuple[str | int, ...] = ("query", "sort")) -> Sort:
    """A sort order from names such as `-created_at`; ties are broken by `_id`.

    `fields` are those that the caller may see. Raises FilterRefused for unknown fields, array fields, fields that
    have no order (objects), repeated keys, and more than 8 keys.
    """
    keys: list[SortKey] = []
    faults: list[Fault] = []
    if len(names) > 8:
        raise FilterRefused([Fault(loc, "at most 8 sort keys", "too_long")])
    for position, name in enumerate(names):
        place = (*loc, position) if len(names) > 1 else loc
        path = name.removeprefix("-")
        stored = _resolve(path, fields)
        if isinstance(stored, Fault):
            faults.append(Fault(place, stored.msg, stored.type))
        elif any(key.path == stored for key in keys):
            faults.append(Fault(place, f"`{path}` occurs twice", "repeated"))
        else:
            keys.append(SortKey(stored, name.startswith("-")))
    if faults:
        raise FilterRefused(faults)
    if not any(key.path == "_id" for key in keys):
        # The tie-break follows the last key's direction, so that one index serves both ways.
        keys.append(SortKey("_id", keys[-1].descending if keys else False))
    return tuple(keys)


def _resolve(path: str, fields: Fields) -> str | Fault:
    by_public = {f.public: f for f in fields.values()}
    first, *rest = path.split(".")
    if first not in by_public:
        return Fault((), f"there is no field `{path}`", "unknown_field")
    stored, field_type = [by_public[first].name], by_public[first].type
    for part in rest:
        inner = _below(field_type, part)
        if inner is None:
            return Fault((), f"there is no field `{path}`", "unknown_field")
        stored.append(part)
        field_type = inner
    if field_type.kind in (Kind.ARRAY, Kind.OBJECT, Kind.MAP):
        return Fault((), f"`{path}` has no single value to sort by", "not_sortable")
    return ".".join(stored)


def _below(field_type: FieldType, part: str) -> FieldType | None:
    if field_type.kind is Kind.OBJECT and field_type.fields is not None and part in field_type.fields:
        return field_type.fields[part].type
    return None


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path through nested documents; None where it is missing, as sorting has it."""
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


# BSON comparison order: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
_TYPE_ORDER: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("minKey", (MinKey,)),
    ("null", (type(None),)),
    ("number", ()),
    ("string", (str,)),
    ("object", (Mapping,)),
    ("array", (list, tuple)),
    ("binData", (bytes, Binary)),
    ("objectId", (ObjectId,)),
    ("bool", (bool,)),
    ("date", ()),
    ("timestamp", (Timestamp,)),
    ("regex", (Regex,)),
    ("maxKey", (MaxKey,)),
)
_NAMES = [name for name, _ in _TYPE_ORDER]


def type_name(value: Any) -> str:
    """The name of a value's class in the BSON comparison order (`number` stands for all four numeric types)."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float | Decimal128):
        return "number"
    if isinstance(value, Code):
        return "string"
    for name, types in _TYPE_ORDER:
        if types and isinstance(value, types):
            return name
    return "date" if hasattr(value, "tzinfo") else "binData"


def order_key(value: Any) -> tuple[Any, ...]:
    """A Python sort key that orders BSON values of any types as MongoDB does, ascending."""
    name = type_name(value)
    rank = _NAMES.index(name)
    if name in ("null", "minKey", "maxKey"):
        return (rank,)
    if name == "number":
        number = value.to_decimal() if isinstance(value, Decimal128) else value
        if number != number:  # NaN sorts before all other numbers
            return (rank, 0, 0)
        return (rank, 1, number)
    if name == "object":
        return (rank, tuple((type_name(v), k, order_key(v)) for k, v in value.items()))
    if name == "array":
        return (rank, tuple(order_key(v) for v in value))
    if name == "binData":
        data = value.bytes if hasattr(value, "bytes") else bytes(value)
        return (rank, len(data), getattr(value, "subtype", 4 if hasattr(value, "bytes") else 0), data)
    if name == "timestamp":
        return (rank, value.time, value.inc)
    if name == "regex":
        return (rank, str(value.pattern), value.flags)
    return (rank, value)


def sort_documents(documents: Iterable[Mapping[str, Any]], sort: Sort) -> list[Mapping[str, Any]]:
    """The documents in the order that MongoDB's `sort` gives them."""
    ordered = list(documents)
    for key in reversed(sort):
        ordered.sort(key=lambda d, path=key.path: order_key(value_at(d, path)), reverse=key.descending)  # type: ignore[misc]
    return ordered


def after(sort: Sort, values: Sequence[Any]) -> dict[str, Any]:
    """The MongoDB condition for documents that come after the one with these sort values (keyset pagination).

    `values` are in the order of `sort`. MongoDB's `$gt` and `$lt` look within one type only, so the types that come
    later are named beside them. An index on the sort keys bounds every branch.
    """
    branches: list[dict[str, Any]] = []
    equal: list[dict[str, Any]] = []
    for key, value in zip(sort, values, strict=True):
        branches.extend({"$and": [*equal, beyond]} for beyond in _beyond(key, value))
        equal = [*equal, {key.path: {"$eq": value}}]
    return {"$or": branches} if branches else {"_id": {"$in": []}}


def _beyond(key: SortKey, value: Any) -> list[dict[str, Any]]:
    name = type_name(value)
    rank = _NAMES.index(name)
    is_nan = isinstance(value, float | Decimal128) and order_key(value)[1] == 0
    found: list[dict[str, Any]] = []
    if key.descending:
        others = _NAMES[:rank]
        if name != "null" and not is_nan:
            found.append({key.path: {"$lt": value}})
            if name == "number":
                found.append({key.path: {"$eq": math.nan}})
    else:
        others = _NAMES[rank + 1 :]
        if is_nan:
            found.append({key.path: {"$gte": -math.inf}})
        elif name != "null":
            found.append({key.path: {"$gt": value}})
    if "null" in others:
        found.append({key.path: {"$eq": None}})
    typed = [n for n in others if n != "null"]
    if typed:
        found.append({key.path: {"$type": typed}})
    return found
