"""MongoDB's comparison of BSON values, over values as PyMongo decodes them (with aware datetimes).

Source: the MongoDB manual, "Comparison/Sort Order", and for numbers of different types the server's
`compare_numbers.h`: by their exact values, as Python's numbers do too (the double 0.1 is above the decimal
0.1).
"""

from __future__ import annotations

import datetime as dt
import math
import operator
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp


class Missing:
    """The type of `MISSING`, the value of a field that is not in the document."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()

Number = int | float | Decimal

NULL_RANK: Final = 5
NUMBER_RANK: Final = 10
STRING_RANK: Final = 15
OBJECT_RANK: Final = 20
ARRAY_RANK: Final = 25
BINARY_RANK: Final = 30
OBJECT_ID_RANK: Final = 35
BOOLEAN_RANK: Final = 40
DATE_RANK: Final = 45

#: By exact type, most frequent first. Values of different rank compare by it and are never equal.
_RANKS: dict[type, int] = {
    str: STRING_RANK, int: NUMBER_RANK, float: NUMBER_RANK, Int64: NUMBER_RANK, Decimal128: NUMBER_RANK,
    bool: BOOLEAN_RANK, type(None): NULL_RANK, ObjectId: OBJECT_ID_RANK, dt.datetime: DATE_RANK,
    list: ARRAY_RANK, dict: OBJECT_RANK, bytes: BINARY_RANK, Binary: BINARY_RANK, uuid.UUID: BINARY_RANK,
    DatetimeMS: DATE_RANK, Missing: 0, MinKey: -1, Timestamp: 47, Regex: 50, Code: 60, MaxKey: 127,
}  # fmt: skip

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)


def rank(value: Any) -> int:
    """The place of the value's type in MongoDB's order of types."""
    found = _RANKS.get(type(value))
    if found is not None:
        return found
    if isinstance(value, Mapping):
        return OBJECT_RANK
    return next((place for known, place in _RANKS.items() if isinstance(value, known)), 126)


def number_of(value: Any) -> Number:
    """A BSON number for Python's arithmetic. Every NaN becomes the float one: Decimal's raises in `<`."""
    if isinstance(value, Decimal128):
        exact = value.to_decimal()
        return math.nan if exact.is_nan() else exact
    return value  # type: ignore[no-any-return]  # rank() says that it is a number


def milliseconds_of(value: dt.datetime | DatetimeMS) -> int:
    """Milliseconds since 1970. PyMongo can give `DatetimeMS` for years that `datetime` has not."""
    return int(value) if isinstance(value, DatetimeMS) else (value - _EPOCH) // _MILLISECOND


def binary_key(value: bytes | uuid.UUID) -> tuple[int, int, bytes]:
    """Binary data orders by length, then subtype, then content. A UUID is subtype 4."""
    if isinstance(value, uuid.UUID):
        return 16, 4, value.bytes
    return len(value), value.subtype if isinstance(value, Binary) else 0, bytes(value)


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1, by the types' order first. NaN equals NaN and precedes all other numbers."""
    left_rank, right_rank = rank(left), rank(right)
    if left_rank != right_rank:
        return _sign(left_rank, right_rank)
    if left_rank == NUMBER_RANK:
        return _compare_numbers(number_of(left), number_of(right))
    if left_rank == ARRAY_RANK:
        return _compare_arrays(left, right)
    if left_rank == OBJECT_RANK:
        return _compare_objects(left, right)
    key = _KEYS.get(left_rank)
    if key is not None:
        return _sign(key(left), key(right))
    # Types that no filter can name; they occur only beside others in a stored array.
    return 0 if left == right else _sign(repr(left), repr(right))


_KEYS: dict[int, Callable[[Any], Any]] = {
    STRING_RANK: operator.methodcaller("__str__"),
    BINARY_RANK: binary_key,
    OBJECT_ID_RANK: lambda value: value.binary,
    BOOLEAN_RANK: bool,
    DATE_RANK: milliseconds_of,
    NULL_RANK: lambda _: 0,
    0: lambda _: 0,
}


def _sign(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


def _compare_numbers(left: Number, right: Number) -> int:
    if left != left or right != right:  # NaN is the number that differs from itself
        return int(left == left) - int(right == right)
    return _sign(left, right)


def _compare_arrays(left: list[Any], right: list[Any]) -> int:
    for one, other in zip(left, right, strict=False):
        if order := compare(one, other):
            return order
    return _sign(len(left), len(right))


def _compare_objects(left: Mapping[str, Any], right: Mapping[str, Any]) -> int:
    for (name, one), (other_name, other) in zip(left.items(), right.items(), strict=False):
        order = _sign(rank(one), rank(other)) or _sign(name, other_name) or compare(one, other)
        if order:
            return order
    return _sign(len(left), len(right))
