"""Clients' filters, in MongoDB's own form as JSON, → the syntax tree.

What is not understood is refused, never passed on: unknown operators, fields that are not declared or that
this caller may not see (with one and the same message), and values of another type than the field's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from documents.errors import Fault, FilterRefused
from documents.filters import values
from documents.filters.ast import (
    EVERYTHING,
    Compare,
    ElementMatch,
    Filter,
    Not,
    NotCompare,
    Operator,
    conjunction,
    disjunction,
)
from documents.filters.paths import Place, has_kind, items_of, resolve
from documents.filters.values import ValueRefused
from documents.shapes import Fields, FieldType, Kind

Loc = tuple[str | int, ...]

#: How deep `$and $or $nor $not $elemMatch` may be nested.
MAX_DEPTH: Final = 5
#: How many conditions and logical operators a filter may have.
MAX_NODES: Final = 40
_MAX_FAULTS: Final = 20

_OPERATORS = {op.value: op for op in Operator}
_LOGICAL = frozenset({"$and", "$or", "$nor"})
_SINGLE = frozenset({Operator.GT, Operator.GTE, Operator.LT, Operator.LTE})
_TEXT = frozenset({Operator.CONTAINS, Operator.STARTSWITH})
_LISTS = frozenset({Operator.IN, Operator.NIN, Operator.ALL})


def parse_filter(data: object, fields: Fields, *, loc: Loc = ("filter",)) -> Filter:
    """The filter that decoded JSON describes.

    `fields` are the declared fields that the caller may see, by stored name; paths in `data` use public
    names. `loc` is where `data` stands in the request and begins the place of every fault.

    Raises FilterRefused with all faults that were found, at most twenty.
    """
    parser = Parser(fields)
    result = parser.filter(data, parser.scope, loc, 0)
    parser.refuse_faults()
    return result


@dataclass
class Parser:
    """One filter being read: counts its nodes and collects its faults."""

    fields: Fields
    nodes: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def scope(self) -> FieldType:
        return FieldType(Kind.OBJECT, fields=self.fields)

    def refuse_faults(self) -> None:
        if self.faults:
            raise FilterRefused(self.faults)

    def filter(self, data: object, scope: FieldType, loc: Loc, depth: int) -> Filter:
        """An object of paths and logical operators. A faulty part becomes EVERYTHING; refusal comes later."""
        if not isinstance(data, dict):
            return self._fault(loc, "expected an object of conditions", "type_error")
        if not data:
            self._count(loc)
        parts: list[Filter] = []
        for key, value in data.items():
            here = (*loc, str(key))
            if key in _LOGICAL:
                parts.append(self._logical(key, value, scope, here, depth + 1))
            elif not isinstance(key, str) or key.startswith("$"):
                parts.append(self._unknown_operator(key, here, top=True))
            elif (place := self.place(key, scope, here)) is not None:
                parts.append(self._conditions(value, place, here, depth))
        return conjunction(parts)

    def place(self, path: str, scope: FieldType, loc: Loc) -> Place | None:
        place = resolve(path, scope)
        if place is None:
            self._count(loc)
            self._fault(loc, "unknown field", "unknown_field")
        return place

    def operation(self, name: object, operand: object, place: Place, loc: Loc, depth: int) -> Filter:
        """One operator on one path; `loc` is the operator's place."""
        if name == "$not":
            return self._not(operand, place, loc, depth + 1)
        if name == "$elemMatch":
            return self._element_match(operand, place, loc, depth + 1)
        self._count(loc)
        if not isinstance(name, str) or (op := _OPERATORS.get(name)) is None:
            return self._unknown_operator(name, loc)
        try:
            return Compare(place.path, op, _operand(op, operand, place))
        except ValueRefused as refused:
            return self._fault((*loc, *refused.at), refused.msg, refused.type)

    def _logical(self, name: str, data: object, scope: FieldType, loc: Loc, depth: int) -> Filter:
        self._count(loc)
        self._check_depth(loc, depth)
        if not isinstance(data, list) or not data:
            return self._fault(loc, f"{name} takes a list of at least one filter", "type_error")
        parts = [self.filter(part, scope, (*loc, index), depth) for index, part in enumerate(data)]
        if name == "$and":
            return conjunction(parts)
        return disjunction(parts) if name == "$or" else Not(disjunction(parts))

    def _conditions(self, data: object, place: Place, loc: Loc, depth: int) -> Filter:
        """What stands after a path: a value, or an object of operators."""
        if not isinstance(data, dict):
            self._count(loc)
            try:
                return Compare(place.path, Operator.EQ, _operand(Operator.EQ, data, place))
            except ValueRefused as refused:
                return self._fault((*loc, *refused.at), refused.msg, refused.type)
        return conjunction(self._operations(data, place, loc, depth))

    def _operations(self, data: Mapping[Any, Any], place: Place, loc: Loc, depth: int) -> list[Filter]:
        if not any(isinstance(key, str) and key.startswith("$") for key in data):
            self._count(loc)
            msg = "objects cannot be compared as a whole; use dotted paths to their fields"
            return [self._fault(loc, msg, "type_error")]
        return [self.operation(name, operand, place, (*loc, str(name)), depth) for name, operand in data.items()]

    def _not(self, data: object, place: Place, loc: Loc, depth: int) -> Filter:
        self._count(loc)
        self._check_depth(loc, depth)
        if not isinstance(data, dict) or not data:
            return self._fault(loc, "$not takes an object of operators", "type_error")
        if "$not" in data:
            return self._fault((*loc, "$not"), "$not cannot stand directly within $not", "unknown_operator")
        operands = self._operations(data, place, loc, depth)
        return NotCompare(tuple(part for part in operands if isinstance(part, Compare | ElementMatch)))

    def _element_match(self, data: object, place: Place, loc: Loc, depth: int) -> Filter:
        self._count(loc)
        self._check_depth(loc, depth)
        if not has_kind(place.type, Kind.ARRAY):
            return self._fault(loc, "$elemMatch is for arrays", "not_applicable")
        if not isinstance(data, dict) or not data:
            return self._fault(loc, "$elemMatch takes an object of conditions", "type_error")
        item = items_of(place.type)
        first = next(iter(data))
        if isinstance(first, str) and first.startswith("$") and first not in _LOGICAL:
            element = Place("", item, in_array=False)
            condition = conjunction(self._operations(data, element, loc, depth))
            return ElementMatch(place.path, condition, scalar=True)
        if not has_kind(item, Kind.OBJECT, Kind.MAP):
            return self._fault(loc, "the array's elements have no fields", "not_applicable")
        return ElementMatch(place.path, self.filter(data, item, loc, depth), scalar=False)

    def _unknown_operator(self, name: object, loc: Loc, *, top: bool = False) -> Filter:
        self._count(loc)
        if isinstance(name, str) and (name in _OPERATORS or name in ("$not", "$elemMatch")):
            hint = "; use $nor" if name == "$not" else ""
            return self._fault(loc, f"{name} stands under a field{hint}", "unknown_operator")
        if isinstance(name, str) and name.startswith("$"):
            hint = f"{name} stands beside fields, not under one" if name in _LOGICAL and not top else ""
            return self._fault(loc, hint or f"unknown operator {name[:40]}", "unknown_operator")
        return self._fault(loc, "expected an operator; use dotted paths to the fields of an object", "unknown_operator")

    def _count(self, loc: Loc) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise FilterRefused([Fault(loc, f"the filter has more than {MAX_NODES} conditions", "too_many_nodes")])

    def _check_depth(self, loc: Loc, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise FilterRefused([Fault(loc, f"the filter is nested more than {MAX_DEPTH} deep", "too_deep")])

    def _fault(self, loc: Loc, msg: str, type: str) -> Filter:
        self.faults.append(Fault(loc, msg, type))
        if len(self.faults) >= _MAX_FAULTS:
            raise FilterRefused(self.faults)
        return EVERYTHING


def _operand(op: Operator, operand: object, place: Place) -> Any:
    """The operator's operand as BSON. Raises ValueRefused."""
    if op is Operator.EXISTS:
        if not isinstance(operand, bool):
            raise ValueRefused("expected true or false")
        return operand
    if op is Operator.SIZE:
        if not has_kind(place.type, Kind.ARRAY):
            raise ValueRefused("$size is for arrays", "not_applicable")
        if isinstance(operand, bool) or not isinstance(operand, int) or not 0 <= operand < 2**31:
            raise ValueRefused("expected a number of elements, 0 or more")
        return operand
    if op in _TEXT:
        if not _holds_text(place.type):
            raise ValueRefused(f"{op} is for strings", "not_applicable")
        return values.coerce_text(operand)
    if op in _LISTS:
        return _list_operand(op, operand, place)
    if op in _SINGLE:
        if operand is None:
            raise ValueRefused(f"{op} does not take null")
        return values.coerce(operand, place.type, choose=False, lists=False)
    return None if operand is None else values.coerce(operand, place.type)


def _list_operand(op: Operator, operand: object, place: Place) -> list[Any]:
    if op is Operator.ALL and not (place.in_array or has_kind(place.type, Kind.ARRAY)):
        raise ValueRefused("$all is for arrays", "not_applicable")
    if not isinstance(operand, list):
        raise ValueRefused(f"{op} takes a list")
    values.check_length(operand)
    members: list[Any] = []
    for index, member in enumerate(operand):
        if member is None and op is not Operator.ALL:
            members.append(None)
            continue
        try:
            members.append(values.coerce(member, place.type))
        except ValueRefused as refused:
            raise ValueRefused(refused.msg, refused.type, (index, *refused.at)) from None
    return members


def _holds_text(type_: FieldType) -> bool:
    return has_kind(type_, Kind.STRING) or (has_kind(type_, Kind.ARRAY) and has_kind(items_of(type_), Kind.STRING))
