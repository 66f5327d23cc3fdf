"""Filter → MongoDB query document.

Operators are always written out (`{"status": {"$eq": …}}`), so that no value can be taken for an operator or
a regular expression.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from bson import Binary

from documents.filters import patterns
from documents.filters.ast import (
    And,
    Compare,
    ElementMatch,
    Everything,
    Filter,
    Not,
    NotCompare,
    Nothing,
    Operator,
    Or,
)

_TEXT = {Operator.CONTAINS: patterns.contains_pattern, Operator.STARTSWITH: patterns.startswith_pattern}


def to_query(filter: Filter) -> dict[str, Any]:
    """The query document for `find`, `count_documents`, `update_many` and `$match`.

    Raises TypeError or ValueError for a tree that MongoDB has no form for; the parser builds none.
    """
    match filter:
        case Everything():
            return {}
        case Nothing():
            # Unlike {"$expr": false} this also works inside $elemMatch, and no server scans for it.
            return {"_id": {"$in": []}}
        case And(parts):
            return {"$and": [to_query(part) for part in parts]}
        case Or(parts):
            return {"$or": [to_query(part) for part in parts]}
        case Not(Or(parts)):
            return {"$nor": [to_query(part) for part in parts]}
        case Not(part):
            return {"$nor": [to_query(part)]}
        case NotCompare(operands):
            return {operands[0].path: {"$not": _operators(operands)}}
        case Compare(path, Operator.ALL, value) if any(item is None or isinstance(item, list) for item in value):
            # What $all means by MongoDB's manual. The embedded server knows it for plain values only.
            return {"$and": [{path: {"$eq": _bson(item)}} for item in value]}
        case Compare(path) | ElementMatch(path):
            return {path: _operators([filter])}
    raise TypeError(f"not a filter: {filter!r}")


def _operators(conditions: Sequence[Filter]) -> dict[str, Any]:
    """Conditions on one value as one document of operators: `{"$gte": 1, "$lt": 5}`."""
    document: dict[str, Any] = {}
    texts: list[str] = []
    for condition in conditions:
        match condition:
            case Compare(_, op, value) if op in _TEXT:
                texts.append(_TEXT[op](value))
                continue
            case Compare(_, op, value):
                name, operand = op.value, _bson(value)
            case NotCompare(operands):
                name, operand = "$not", _operators(operands)
            case ElementMatch(_, inner, True):
                name, operand = "$elemMatch", _element(inner)
            case ElementMatch(_, inner, _):
                name, operand = "$elemMatch", _subdocument(inner)
            case _:
                raise TypeError(f"not a condition on one value: {condition!r}")
        if name in document:
            raise ValueError(f"{name} occurs twice on one value, which has no form in a query")
        document[name] = operand
    if texts:
        # Both text operators are regular expressions, and a document has one $regex only.
        document["$regex"] = patterns.all_patterns(texts)
    return document


def _element(condition: Filter) -> dict[str, Any]:
    match condition:
        case Everything():
            return {"$exists": True}
        case Nothing():
            return {"$in": []}
        case And(parts):
            return _operators(parts)
    return _operators([condition])


def _subdocument(condition: Filter) -> dict[str, Any]:
    query = to_query(condition)
    if next(iter(query), "").startswith("$"):
        # The embedded server takes a $elemMatch that begins with $and, $or or $nor for one on plain values.
        query = {"_id": {"$nin": []}, **query}
    return query


def _bson(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        # Whatever the client's uuid_representation is: validators and documents use subtype 4.
        return Binary.from_uuid(value)
    return [_bson(item) for item in value] if isinstance(value, list) else value
