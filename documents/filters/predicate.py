"""Filter → a test of one image, with exactly the answer that MongoDB gives to the filter's query.

The filter is compiled once into nested closures, since each change is tested against every live view: a
comparison of a scalar field costs a few hundred nanoseconds.
"""

from __future__ import annotations

import datetime as dt
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from bson import DatetimeMS, Decimal128, Int64, ObjectId

from documents.filters import ordering, patterns
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
from documents.filters.ordering import MISSING
from documents.filters.traversal import DocumentTest, ValueTest, at_path

_COMPARISONS: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQ: operator.eq,
    Operator.GT: operator.gt,
    Operator.GTE: operator.ge,
    Operator.LT: operator.lt,
    Operator.LTE: operator.le,
}
_HOLDS_WHEN_EQUAL = frozenset({Operator.EQ, Operator.GTE, Operator.LTE})


def compile_predicate(filter: Filter) -> DocumentTest:
    """A function of an image that says whether the filter matches it.

    The image is a document as PyMongo decodes it with `tz_aware=True`. The function keeps no state and may be
    shared.
    """
    match filter:
        case Everything():
            return lambda _: True
        case Nothing():
            return lambda _: False
        case And(parts):
            return all_of([compile_predicate(part) for part in parts])
        case Or(parts):
            return _any_of([compile_predicate(part) for part in parts])
        case Not(part):
            return _negated(compile_predicate(part))
        case NotCompare(operands):
            return _negated(all_of([compile_predicate(operand) for operand in operands]))
        case Compare(path, op, value):
            return _compare_at(path, op, value)
        case ElementMatch(path, condition, scalar):
            return at_path(path, _element_match(condition, scalar), into_leaf=False)
    raise TypeError(f"not a filter: {filter!r}")


def _compare_at(path: str, op: Operator, value: Any) -> DocumentTest:
    match op:
        case Operator.NE | Operator.NIN:
            positive = Operator.EQ if op is Operator.NE else Operator.IN
            return _negated(at_path(path, _value_test(positive, value)))
        case Operator.EXISTS:
            exists = at_path(path, _value_test(Operator.EXISTS, True))
            return exists if value else _negated(exists)
        case Operator.ALL:
            # Each value may be found in another place, so each walks the path by itself.
            tests = [at_path(path, _value_test(Operator.EQ, item)) for item in value]
            return all_of(tests) if tests else lambda _: False
        case Operator.SIZE:
            return at_path(path, _value_test(op, value), into_leaf=False)
    return at_path(path, _value_test(op, value))


def _element_match(condition: Filter, scalar: bool) -> ValueTest:
    if scalar:
        test = _element_test(condition)
        return lambda value: isinstance(value, list) and any(map(test, value))
    matches = compile_predicate(condition)

    def holds(value: Any) -> bool:
        if not isinstance(value, list):
            return False
        for element in value:
            if isinstance(element, dict):
                if matches(element):
                    return True
            # MongoDB sees an array in an array as a document whose fields are "0", "1", ...
            elif isinstance(element, list) and matches({str(i): item for i, item in enumerate(element)}):
                return True
        return False

    return holds


def _element_test(condition: Filter) -> ValueTest:
    """The condition of a scalar `$elemMatch` as a test of one element, which no path enters."""
    match condition:
        case Everything():
            return lambda _: True
        case Nothing():
            return lambda _: False
        case And(parts):
            return all_of([_element_test(part) for part in parts])
        case NotCompare(operands):
            return _negated(all_of([_element_test(operand) for operand in operands]))
        case ElementMatch(_, inner, scalar):
            return _element_match(inner, scalar)
        case Compare(_, op, value):
            return _value_test(op, value)
    raise TypeError(f"not a condition on one element: {condition!r}")


def _value_test(op: Operator, value: Any) -> ValueTest:
    """One operator on one value: what the server calls matching a single element."""
    match op:
        case Operator.NE:
            return _negated(_comparison(Operator.EQ, value))
        case Operator.IN:
            return _membership(value)
        case Operator.NIN:
            return _negated(_membership(value))
        case Operator.EXISTS:
            return lambda found: (found is not MISSING) is value
        case Operator.ALL:
            return all_of([_comparison(Operator.EQ, item) for item in value]) if value else lambda _: False
        case Operator.SIZE:
            return lambda found: isinstance(found, list) and len(found) == value
        case Operator.CONTAINS:
            return _search(patterns.contains_pattern(value))
        case Operator.STARTSWITH:
            return _search(patterns.startswith_pattern(value))
    return _comparison(op, value)


def _search(pattern: str) -> ValueTest:
    search = re.compile(pattern).search
    return lambda found: type(found) is str and search(found) is not None


def _comparison(op: Operator, value: Any) -> ValueTest:
    """`$eq`, `$gt`, `$gte`, `$lt`, `$lte`: only values of the same type (any number, any binary) can pass."""
    if value is None:
        return _is_null if op in _HOLDS_WHEN_EQUAL else lambda _: False
    holds = _COMPARISONS[op]
    place = ordering.rank(value)
    if place == ordering.STRING_RANK:
        return lambda found: type(found) is str and holds(found, value)
    if place == ordering.NUMBER_RANK:
        return _number_comparison(op, ordering.number_of(value))
    if place == ordering.OBJECT_ID_RANK:
        return lambda found: type(found) is ObjectId and holds(found, value)
    if place == ordering.BOOLEAN_RANK:
        return lambda found: type(found) is bool and holds(found, value)
    if place == ordering.DATE_RANK:
        return _date_comparison(op, value)
    if place == ordering.BINARY_RANK:
        key = ordering.binary_key(value)
        return lambda found: ordering.rank(found) == ordering.BINARY_RANK and holds(ordering.binary_key(found), key)
    return lambda found: ordering.rank(found) == place and holds(ordering.compare(found, value), 0)


def _is_null(found: Any) -> bool:
    return found is None or found is MISSING


def _number_comparison(op: Operator, value: ordering.Number) -> ValueTest:
    if value != value:
        # NaN equals NaN and is neither above nor below any number.
        return _is_nan if op in _HOLDS_WHEN_EQUAL else lambda _: False
    holds = _COMPARISONS[op]
    # Decimal raises where floats say False: when it is ordered beside NaN.
    guarded = isinstance(value, Decimal)

    def test(found: Any) -> bool:
        kind = type(found)
        if kind is int or kind is Int64:
            return holds(found, value)
        if kind is float or kind is Decimal128:
            number = ordering.number_of(found)
            return (not guarded or number == number) and holds(number, value)
        return False

    return test


def _is_nan(found: Any) -> bool:
    if isinstance(found, Decimal128):
        return found.to_decimal().is_nan()
    return type(found) is float and math.isnan(found)


def _date_comparison(op: Operator, value: dt.datetime | DatetimeMS) -> ValueTest:
    holds = _COMPARISONS[op]
    moment = ordering.milliseconds_of(value)

    def test(found: Any) -> bool:
        if type(found) is dt.datetime and type(value) is dt.datetime:
            return holds(found, value)
        if isinstance(found, dt.datetime | DatetimeMS):
            return holds(ordering.milliseconds_of(found), moment)
        return False

    return test


def _membership(values: list[Any]) -> ValueTest:
    strings = frozenset(value for value in values if type(value) is str)
    object_ids = frozenset(value for value in values if type(value) is ObjectId)
    null = any(value is None for value in values)
    others = [
        _comparison(Operator.EQ, value)
        for value in values
        if value is not None and type(value) is not str and type(value) is not ObjectId
    ]

    def test(found: Any) -> bool:
        if type(found) is str:
            return found in strings
        if type(found) is ObjectId:
            return found in object_ids
        if found is None or found is MISSING:
            return null
        return any(same(found) for same in others)

    return test


def _negated(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda subject: not test(subject)


def all_of(tests: Sequence[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    """A test that holds where all of them hold; where there is none, always."""
    if not tests:
        return lambda _: True
    if len(tests) == 1:
        return tests[0]

    def holds(subject: Any) -> bool:
        for test in tests:  # noqa: SIM110  # a loop costs half of all() over a generator
            if not test(subject):
                return False
        return True

    return holds


def _any_of(tests: list[Callable[[Mapping[str, Any]], bool]]) -> DocumentTest:
    def holds(image: Mapping[str, Any]) -> bool:
        for test in tests:  # noqa: SIM110  # a loop costs half of any() over a generator
            if test(image):
                return True
        return False

    return holds
