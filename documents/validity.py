"""Whether a stored document keeps the rules of its collection's `$jsonSchema`, decided in this process.

The validator itself is what is read here, so that a document which the API marks as invalid is one that the database
would refuse to take. https://www.mongodb.com/docs/manual/reference/operator/query/jsonSchema/
"""

from __future__ import annotations

import datetime as dt
import decimal
import operator
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

from documents.filters import ordering
from documents.filters.predicate import all_of

#: A test of one value.
Test = Callable[[Any], bool]
Schema = Mapping[str, Any]
#: Makes the test that a keyword demands, given its value and the schema in which it stands.
Keyword = Callable[[Any, Schema], Test]

_BSON_TYPES: dict[type, str] = {
    str: "string", bool: "bool", float: "double", Int64: "long", Decimal128: "decimal", type(None): "null",
    dict: "object", list: "array", ObjectId: "objectId", dt.datetime: "date", DatetimeMS: "date", bytes: "binData",
    Binary: "binData", uuid.UUID: "binData", Timestamp: "timestamp", Regex: "regex", re.Pattern: "regex",
    MinKey: "minKey", MaxKey: "maxKey",
}  # fmt: skip
_NUMBERS = frozenset({"int", "long", "double", "decimal"})
_INT32 = 2**31


def bson_type(value: Any) -> str:
    """The alias under which `$type` and `bsonType` know the type of a decoded value."""
    if (known := _BSON_TYPES.get(type(value))) is not None:
        return known
    if type(value) is int:
        return "int" if -_INT32 <= value < _INT32 else "long"
    if isinstance(value, Code):
        return "javascript" if value.scope is None else "javascriptWithScope"
    # What is left is a subclass of one of them, or a DBRef.
    return next((name for base, name in _BSON_TYPES.items() if isinstance(value, base)), "object")


class Validity:
    """The rules of one collection.

    Built once for a class; judging a document of ten fields takes a few microseconds. Raises ValueError for a schema
    with a keyword that is not known here: nothing may be passed over.
    """

    def __init__(self, schema: Schema) -> None:
        rules = {name: rule for name, rule in schema.items() if name not in _WORDS}
        properties: Mapping[str, Schema] = rules.pop("properties", {})
        self._tests = {name: _compiled(rule) for name, rule in properties.items()}
        self._required: Sequence[str] = rules.pop("required", ())
        self._others: bool = rules.pop("additionalProperties", True)
        if rules not in ({}, {"bsonType": "object"}) or not isinstance(self._others, bool):
            raise ValueError(f"a document's rules cannot be judged: {sorted(rules)}")

    def faults(self, document: Mapping[str, Any]) -> list[str]:
        """The names of the fields that break the rules, as stored; those that are missing come last."""
        found: list[str] = []
        tests = self._tests
        for name, value in document.items():
            test = tests.get(name)
            if test is None:
                if not self._others:
                    found.append(name)
            elif not test(value):
                found.append(name)
        found.extend(name for name in self._required if name not in document)
        return found


#: Keywords that explain and demand nothing.
_WORDS = frozenset({"title", "description"})


def _compiled(schema: Schema) -> Test:
    """The test that `schema` is. Each keyword looks at values of its own types and lets all others pass."""
    tests: list[Test] = []
    for keyword, demand in schema.items():
        if keyword in _WORDS or keyword in _BESIDE:
            continue
        if (make := _KEYWORDS.get(keyword)) is None:
            raise ValueError(f"`{keyword}` cannot be judged")
        tests.append(make(demand, schema))
    return all_of(tests)


def _types(demand: str | Sequence[str], _: Schema) -> Test:
    named = {demand} if isinstance(demand, str) else set(demand)
    accepted = (named - {"number"}) | (_NUMBERS if "number" in named else set())
    exact = {python for python, name in _BSON_TYPES.items() if name in accepted}
    if accepted >= {"int", "long"}:
        exact.add(int)
    return lambda value: type(value) in exact or bson_type(value) in accepted


def _choices(demand: Sequence[Any], _: Schema) -> Test:
    keys = frozenset(map(_identity, demand))
    return lambda value: _identity(value) in keys


def _length(compare: Callable[[int, int], bool], of: type[str | list[Any] | dict[str, Any]]) -> Keyword:
    def make(limit: int, _: Schema) -> Test:
        return lambda value: not isinstance(value, of) or compare(len(value), limit)

    return make


def _bound(flag: str, inclusive: Callable[..., bool], exclusive: Callable[..., bool]) -> Keyword:
    def make(limit: Any, schema: Schema) -> Test:
        edge = ordering.number_of(limit)
        holds = exclusive if schema.get(flag) else inclusive

        def test(value: Any) -> bool:
            if type(value) is not int and bson_type(value) not in _NUMBERS:
                return True
            number = ordering.number_of(value)
            # NaN is neither above nor below anything.
            return number == number and holds(number, edge)

        return test

    return make


def _multiple(step: Any, _: Schema) -> Test:
    divisor = _decimal(step)

    def test(value: Any) -> bool:
        if bson_type(value) not in _NUMBERS:
            return True
        number = _decimal(value)
        return number.is_finite() and _DECIMAL128.remainder(number, divisor) == 0

    return test


#: IEEE 754 decimal128, with room for the remainder of its greatest by its least number.
_DECIMAL128 = decimal.Context(prec=12_400, Emin=-6_200, Emax=12_400)
_FIFTEEN_DIGITS = decimal.Context(prec=15)


def _decimal(value: Any) -> decimal.Decimal:
    if isinstance(value, Decimal128):
        return value.to_decimal()
    # As the server converts a double.
    return _FIFTEEN_DIGITS.create_decimal_from_float(value) if isinstance(value, float) else decimal.Decimal(value)


_END = re.compile(r"(?<!\\)((?:\\\\)*)\\z")


def _pattern(demand: str, _: Schema) -> Test:
    # Python spells PCRE's end of the text with a capital letter.
    search = re.compile(_END.sub(r"\1\\Z", demand)).search
    return lambda value: not isinstance(value, str) or search(value) is not None


def _unique(demand: bool, _: Schema) -> Test:
    def test(value: Any) -> bool:
        return not isinstance(value, list) or len({_identity(item) for item in value}) == len(value)

    return test if demand else lambda _: True


def _items(demand: Schema, _: Schema) -> Test:
    test = _compiled(demand)
    return lambda value: not isinstance(value, list) or all(map(test, value))


def _properties(demand: Mapping[str, Schema], _: Schema) -> Test:
    tests = [(name, _compiled(rule)) for name, rule in demand.items()]

    def test(value: Any) -> bool:
        return not isinstance(value, Mapping) or all(holds(value[name]) for name, holds in tests if name in value)

    return test


def _required(demand: Sequence[str], _: Schema) -> Test:
    return lambda value: not isinstance(value, Mapping) or all(name in value for name in demand)


def _additional(demand: bool | Schema, schema: Schema) -> Test:
    declared = frozenset(schema.get("properties", ()))
    holds = _compiled(demand) if isinstance(demand, Mapping) else lambda _: demand

    def test(value: Any) -> bool:
        return not isinstance(value, Mapping) or all(
            holds(inner) for name, inner in value.items() if name not in declared
        )

    return test


def _any_of(demand: Iterable[Schema], _: Schema) -> Test:
    tests = [_compiled(rule) for rule in demand]
    return lambda value: any(test(value) for test in tests)


def _identity(value: Any) -> Any:
    """Equal for what MongoDB holds to be equal: numbers by their values, objects in any order of their fields."""
    place = ordering.rank(value)
    if place == ordering.NUMBER_RANK:
        number = ordering.number_of(value)
        return place, number if number == number else None
    if place == ordering.BINARY_RANK:
        return place, ordering.binary_key(value)
    if place == ordering.DATE_RANK:
        return place, ordering.milliseconds_of(value)
    if place == ordering.ARRAY_RANK:
        return place, tuple(map(_identity, value))
    if isinstance(value, Mapping):
        return place, frozenset((name, _identity(inner)) for name, inner in value.items())
    # The other types can be hashed, and those that can not are looked at as text.
    return place, value if isinstance(value, str | bool | ObjectId | None) else repr(value)


_KEYWORDS: dict[str, Keyword] = {
    "bsonType": _types,
    "enum": _choices,
    "minLength": _length(operator.ge, str),
    "maxLength": _length(operator.le, str),
    "minItems": _length(operator.ge, list),
    "maxItems": _length(operator.le, list),
    "minProperties": _length(operator.ge, dict),
    "maxProperties": _length(operator.le, dict),
    "minimum": _bound("exclusiveMinimum", operator.ge, operator.gt),
    "maximum": _bound("exclusiveMaximum", operator.le, operator.lt),
    "multipleOf": _multiple,
    "pattern": _pattern,
    "uniqueItems": _unique,
    "items": _items,
    "properties": _properties,
    "required": _required,
    "additionalProperties": _additional,
    "anyOf": _any_of,
}
#: Keywords that another one reads.
_BESIDE = frozenset({"exclusiveMinimum", "exclusiveMaximum"})
