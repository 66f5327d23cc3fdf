"""The update operators of arrays: `$push`, `$addToSet` and `$pull`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from documents.editing import Loc, bson_value
from documents.errors import DocumentRefused, Fault, FilterRefused
from documents.filters import Place, compile_predicate, parse_filter
from documents.filters.ordering import MISSING
from documents.filters.paths import has_kind, items_of
from documents.filters.values import ValueRefused, coerce
from documents.input import faults_of
from documents.shapes import Field, FieldType, Kind
from documents.sorting import order_key

Change = Callable[[Any], Any]


def push(operand: Any, place: Place, loc: Loc) -> Change:
    """Append a value, or with `$each` several: at `$position`, and then cut to the first (negative: last) `$slice`."""
    values, modifiers = _values(operand, place, loc, frozenset({"$position", "$slice"}))
    at, keep = modifiers.get("$position"), modifiers.get("$slice")

    def change(held: Any) -> list[Any]:
        array = _array(held)
        # As in Python, a position beyond either end is that end.
        where = len(array) if at is None else at
        array = [*array[:where], *copy.deepcopy(values), *array[where:]]
        if keep is None:
            return array
        return array[:keep] if keep >= 0 else array[keep:]

    return change


def add_to_set(operand: Any, place: Place, loc: Loc) -> Change:
    """Append a value, or with `$each` several, where the array holds no equal one. Equal objects have equal fields."""
    values, _ = _values(operand, place, loc, frozenset())
    item = _item(place)
    keyed = [(order_key(_bson(value, item)), value) for value in values]

    def change(held: Any) -> list[Any]:
        array = _array(held)
        known = {order_key(bson_value(element)) for element in array}
        new = []
        for key, value in keyed:
            if key not in known:
                known.add(key)
                new.append(copy.deepcopy(value))
        return [*array, *new]

    return change


def pull(operand: Any, place: Place, loc: Loc) -> Change:
    """Remove all elements that equal the operand, or that match it where it is a condition."""
    matches = _condition(operand, _item(place), loc)

    def change(held: Any) -> Any:
        if held is MISSING:
            return MISSING
        return [element for element in _array(held) if not matches(bson_value(element))]

    return change


def _array(held: Any) -> list[Any]:
    if held is MISSING:
        return []
    if not isinstance(held, list):
        raise ValueRefused("the field holds no array")
    return held


def _item(place: Place) -> FieldType:
    if not has_kind(place.type, Kind.ARRAY):
        raise ValueRefused("the field is no array")
    return items_of(place.type)


def _values(operand: Any, place: Place, loc: Loc, allowed: frozenset[str]) -> tuple[list[Any], dict[str, int]]:
    """The values to add, and the modifiers beside `$each`. Raises DocumentRefused and ValueRefused."""
    item = _item(place)
    modifiers: dict[str, int] = {}
    values: Any = [operand]
    places = [loc]
    if isinstance(operand, dict) and any(key.startswith("$") for key in operand):
        for key, value in operand.items():
            if key in allowed:
                if isinstance(value, bool) or not isinstance(value, int):
                    raise DocumentRefused.at(*loc, key, msg="a whole number is expected", type="int_type")
                modifiers[key] = value
            elif key != "$each":
                known = ", ".join(["$each", *sorted(allowed)])
                raise DocumentRefused.at(*loc, key, msg=f"unknown modifier; there are {known}", type="unknown_operator")
        values = operand.get("$each")
        if not isinstance(values, list):
            raise DocumentRefused.at(*loc, "$each", msg="an array of the values to add is expected", type="list_type")
        places = [(*loc, "$each", index) for index in range(len(values))]
    faults = [
        fault
        for value, where in zip(values, places, strict=True)
        for fault in faults_of(value, item, where, place.path.count(".") + 2)
    ]
    if faults:
        raise DocumentRefused(faults)
    return values, modifiers


def _condition(operand: Any, item: FieldType, loc: Loc) -> Callable[[Any], bool]:
    if not isinstance(operand, dict):
        faults = list(faults_of(operand, None, loc, 1))
        if faults:
            raise DocumentRefused(faults)
        wanted = order_key(_bson(operand, item))
        return lambda element: order_key(element) == wanted
    try:
        if any(key.startswith("$") for key in operand):
            fields = {_ELEMENT: Field(_ELEMENT, _ELEMENT, item, required=False)}
            test = compile_predicate(parse_filter({_ELEMENT: operand}, fields, loc=loc))
            return lambda element: test({_ELEMENT: element})
        if item.kind is Kind.OBJECT and item.fields is not None:
            condition = parse_filter(operand, item.fields, loc=loc)
        else:
            fields = {_ELEMENT: Field(_ELEMENT, _ELEMENT, item, required=False)}
            condition = parse_filter({f"{_ELEMENT}.{key}": value for key, value in operand.items()}, fields, loc=loc)
    except FilterRefused as refused:
        raise DocumentRefused([_placed(fault, len(loc)) for fault in refused.faults]) from None
    if item.kind is Kind.OBJECT:
        of_document = compile_predicate(condition)
        return lambda element: isinstance(element, dict) and of_document(element)
    of_element = compile_predicate(condition)
    return lambda element: isinstance(element, dict) and of_element({_ELEMENT: element})


def _placed(fault: Fault, at: int) -> Fault:
    """`fault` of a filter without the part of its place that is not in the request."""
    name = str(fault.loc[at]) if len(fault.loc) > at else ""
    shown = () if name == _ELEMENT else (name.removeprefix(f"{_ELEMENT}."),)
    return Fault((*fault.loc[:at], *shown, *fault.loc[at + 1 :]), fault.msg, fault.type) if name else fault


#: A filter tests a document, so an element is put into one. No field can have this name.
_ELEMENT = "element"


def _bson(value: Any, field_type: FieldType) -> Any:
    """A client's value as it would be stored in a field of this type. One that does not fit stays as it is: nothing
    equals it, and where it is to be stored it is refused."""
    if isinstance(value, dict):
        if field_type.kind is Kind.OBJECT and field_type.fields is not None:
            fields = field_type.fields
            # In the class's order: in BSON, objects of another order are other objects.
            ordered = [name for name in fields if name in value] + [name for name in value if name not in fields]
            return {n: _bson(value[n], fields[n].type if n in fields else _ANY) for n in ordered}
        return {name: _bson(inner, field_type.item or _ANY) for name, inner in value.items()}
    if isinstance(value, list):
        return [_bson(inner, items_of(field_type)) for inner in value]
    if value is None:
        return None
    try:
        return coerce(value, field_type, choose=False, lists=False)
    except ValueRefused:
        return value


_ANY = FieldType(Kind.ANY)
