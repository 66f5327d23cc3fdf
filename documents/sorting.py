"""Sort orders: parsing, MongoDB's order of values in Python, and the condition that continues a list (keyset).

MongoDB orders values of different types by type first (BSON comparison order). Snapshots are sorted again here after
changes were worked in, and cursors must continue over null, missing and mixed types, so both follow that order.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson import Code, DatetimeMS, DBRef, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp

from documents.errors import Fault, FilterRefused
from documents.filters import ordering
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


def sortable_names(fields: Fields) -> list[str]:
    """The public names of those of `fields` that a list can be sorted by."""
    return [f.public for f in fields.values() if not isinstance(_resolve(f.public, fields), Fault)]


def sort_kinds(fields: Fields, prefix: str = "") -> dict[str, list[str]]:
    """The public, dotted paths that a list can be sorted by, and which kinds of values stand there.

    The public form writes some kinds as text; who sorts by it must know what the text is.
    """
    kinds: dict[str, list[str]] = {}
    for field in fields.values():
        members = field.type.alternatives if field.type.kind is Kind.UNION else (field.type,)
        if field.type.kind is Kind.OBJECT:
            kinds |= sort_kinds(field.type.fields or {}, f"{prefix}{field.public}.")
        elif field.type.kind not in (Kind.ARRAY, Kind.MAP):
            kinds[prefix + field.public] = [member.kind.value for member in members]
    return kinds


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


def order_of(sort: Sort) -> list[tuple[str, int]]:
    """The order as the driver takes it."""
    return [(key.path, -1 if key.descending else 1) for key in sort]


def sort_value(document: Mapping[str, Any], key: SortKey) -> Any:
    """The value that MongoDB sorts the document by: None where there is none.

    Of an array, which only a document that breaks its class's rules can hold here, it is the least element
    (descending: the greatest), and the array itself when that is empty.
    """
    values = list(_values_at(document, key.path.split(".")))
    if len(values) == 1:
        return values[0]
    return (max if key.descending else min)(values, key=_sort_key) if values else None


def _values_at(value: Any, path: list[str]) -> Iterator[Any]:
    if not path:
        if isinstance(value, list) and value:
            yield from value
        else:
            yield value
    elif isinstance(value, Mapping):
        yield from _values_at(value.get(path[0]), path[1:])
    elif isinstance(value, list):
        for element in value:
            yield from _values_at(element, path) if isinstance(element, Mapping) else [None]
    else:
        yield None


# BSON comparison order: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
# "empty" is the empty array, which sorts as the type `undefined`.
_CLASSES = (
    "minKey", "empty", "null", "number", "string", "object", "array", "binData", "objectId", "bool", "date",
    "timestamp", "regex", "javascript", "javascriptWithScope", "maxKey",
)  # fmt: skip
_RANKS = {name: place for place, name in enumerate(_CLASSES)}
#: Classes whose values are all equal, or, of regular expressions, cannot be compared in a query.
_SINGLE = frozenset({"minKey", "empty", "null", "regex", "maxKey"})

#: By type; subclasses before their bases.
_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "bool"),
    ((int, float, Decimal128), "number"),
    (str, "string"),
    ((Mapping, DBRef), "object"),
    ((list, tuple), "array"),
    ((bytes, uuid.UUID), "binData"),
    (ObjectId, "objectId"),
    ((dt.datetime, DatetimeMS), "date"),
    (Timestamp, "timestamp"),
    ((Regex, re.Pattern), "regex"),
    (type(None), "null"),
    (MinKey, "minKey"),
    (MaxKey, "maxKey"),
)


def type_name(value: Any) -> str:
    """The name of a value's class in the BSON comparison order (`number` stands for all four numeric types)."""
    if isinstance(value, Code):
        return "javascript" if value.scope is None else "javascriptWithScope"
    return next(name for types, name in _TYPES if isinstance(value, types))


def order_key(value: Any) -> tuple[Any, ...]:
    """A Python sort key that orders BSON values of any types as MongoDB does, ascending."""
    name = type_name(value)
    rank = _RANKS[name]
    match name:
        case "null" | "minKey" | "maxKey":
            return (rank,)
        case "number":
            number = ordering.number_of(value)
            # NaN sorts before all other numbers.
            return (rank, 0, 0) if number != number else (rank, 1, number)
        case "object":
            fields = value.as_doc() if isinstance(value, DBRef) else value
            return (rank, tuple((_RANKS[type_name(v)], k, order_key(v)) for k, v in fields.items()))
        case "array":
            return (rank, tuple(order_key(v) for v in value))
        case "binData":
            return (rank, *ordering.binary_key(value))
        case "date":
            return (rank, ordering.milliseconds_of(value))
        case "timestamp":
            return (rank, value.time, value.inc)
        case "regex":
            return (rank, str(value.pattern), value.flags)
        case "javascriptWithScope":
            return (rank, str(value), order_key(value.scope))
    return (rank, value)


def _class_of(value: Any) -> str:
    """`type_name` of a value that `sort_value` returned."""
    return "empty" if isinstance(value, list) and not value else type_name(value)


def _sort_key(value: Any) -> tuple[Any, ...]:
    return (_RANKS["empty"],) if _class_of(value) == "empty" else order_key(value)


def sort_documents(documents: Iterable[Mapping[str, Any]], sort: Sort) -> list[Mapping[str, Any]]:
    """The documents in the order that MongoDB's `sort` gives them."""
    ordered = list(documents)
    for key in reversed(sort):
        ordered.sort(key=lambda d, key=key: _sort_key(sort_value(d, key)), reverse=key.descending)  # type: ignore[misc]
    return ordered


def after(sort: Sort, values: Sequence[Any]) -> dict[str, Any]:
    """The MongoDB condition for documents that come after the one with these sort values (keyset pagination).

    `values` are in the order of `sort`, as `sort_value` gives them. MongoDB's `$gt` and `$lt` look within one type
    only, so the types that come later are named beside them. An index on the sort keys bounds every branch.
    """
    branches: list[dict[str, Any]] = []
    equal: list[dict[str, Any]] = []
    for key, value in zip(sort, values, strict=True):
        upward = not key.descending
        unpassed = [] if key.path == "_id" else [{"$nor": _from(key.path, value, upward=not upward, inclusive=True)}]
        branches.extend(
            {"$and": [*equal, beyond, *unpassed]} for beyond in _from(key.path, value, upward=upward, inclusive=False)
        )
        equal.append({key.path: {"$eq": value}})
        # One element of an array may equal the value, or lie beyond it, while it is another that the array sorts by.
        if passed := [] if key.path == "_id" else _from(key.path, value, upward=not upward, inclusive=False):
            equal.append({"$nor": passed})
    return {"$or": branches} if branches else {"_id": {"$in": []}}


def _from(path: str, value: Any, *, upward: bool, inclusive: bool) -> list[dict[str, Any]]:
    """Conditions that together find what lies above (or below) `value`, and `value` itself when `inclusive`."""
    name = _class_of(value)
    rank = _RANKS[name]
    found: list[dict[str, Any]] = []
    if name in _SINGLE:
        if inclusive:
            found.append(_whole_class(path, name))
    elif name == "number" and order_key(value)[1] == 0:  # NaN
        if inclusive:
            found.append({path: {"$eq": math.nan}})
        if upward:
            found.append({path: {"$gte": -math.inf}})
    else:
        operator = ("$gt" if upward else "$lt") + ("e" if inclusive else "")
        found.append({path: {operator: value}})
        if name == "number" and not upward:
            found.append({path: {"$eq": math.nan}})
    others = _CLASSES[rank + 1 :] if upward else _CLASSES[:rank]
    typed = [other for other in others if other not in _BY_VALUE]
    found += [_whole_class(path, other) for other in others if other in _BY_VALUE]
    return [*found, {path: {"$type": typed}}] if typed else found


#: Classes that `$type` does not tell apart from others as sorting does: it finds every array as `array`.
_BY_VALUE = frozenset({"null", "empty", "array"})


def _whole_class(path: str, name: str) -> dict[str, Any]:
    match name:
        case "null":
            return {path: {"$eq": None}}
        case "empty":
            return {path: {"$eq": []}}
        case "array":
            # MongoDB searches the whole index for `$type: array`, so that is not what leads to them.
            return {path: {"$gte": [], "$elemMatch": {"$type": "array"}}}
    return {path: {"$type": name}}
