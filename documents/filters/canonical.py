"""Filter → bytes that are the same for filters that are written differently but are the same.

They are part of a view's identity: subscribers whose filters have equal bytes share matching and frames.
Equal bytes mean equal results; the reverse is not promised.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import Any

from bson import Binary, DatetimeMS, Decimal128, ObjectId

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
from documents.filters.ordering import milliseconds_of

_SETS = frozenset({Operator.IN, Operator.NIN, Operator.ALL})


def canonical(filter: Filter) -> bytes:
    """The filter's identity. The order and repetition of parts and of list members make no difference."""
    match filter:
        case Everything():
            return b"everything"
        case Nothing():
            return b"nothing"
        case And(parts):
            return _sequence(b"and", _unordered(map(canonical, parts)))
        case Or(parts):
            return _sequence(b"or", _unordered(map(canonical, parts)))
        case Not(part):
            return _sequence(b"not", [canonical(part)])
        case NotCompare(operands):
            return _sequence(b"not-compare", _unordered(map(canonical, operands)))
        case ElementMatch(path, condition, scalar):
            return _sequence(b"element" if scalar else b"subdocument", [path.encode(), canonical(condition)])
        case Compare(path, op, value):
            members = _sequence(b"set", _unordered(map(_value, value))) if op in _SETS else _value(value)
            return _sequence(op.encode(), [path.encode(), members])
    raise TypeError(f"not a filter: {filter!r}")


def _unordered(encodings: Iterable[bytes]) -> list[bytes]:
    return sorted(set(encodings))


def _sequence(tag: bytes, parts: list[bytes]) -> bytes:
    # Each part is preceded by its length, so that no content can look like structure.
    return tag + b"(" + b"".join(b"%d:%b" % (len(part), part) for part in parts) + b")"


def _value(value: Any) -> bytes:
    match value:
        case None:
            return b"null"
        case bool():
            return b"true" if value else b"false"
        case float() if value.is_integer() and abs(value) < 2**53:
            return b"number %d" % int(value)  # JSON's 3 and 3.0 are the same number
        case int():
            return b"number %d" % value
        case float():
            return b"number " + repr(value).encode()
        case Decimal128():
            return b"decimal " + str(value).encode()
        case str():
            return b"string " + value.encode()
        case ObjectId():
            return b"object id " + value.binary
        case dt.datetime() | DatetimeMS():
            return b"date %d" % milliseconds_of(value)
        case uuid.UUID():
            return b"binary 4 " + value.bytes
        case bytes():
            return b"binary %d " % (value.subtype if isinstance(value, Binary) else 0) + bytes(value)
        case list():
            return _sequence(b"list", [_value(item) for item in value])
    raise TypeError(f"not a filter's value: {value!r}")
