"""The short forms of list URLs: `?status=published&score[gte]=3&tags[in]=a,b`.

Each parameter is one condition; together they mean `$and`. The text becomes the JSON value that the field's
type calls for, and from there on the rules are those of `documents.filters.parser`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from documents.errors import Fault
from documents.filters.ast import Filter, Operator, conjunction
from documents.filters.parser import Loc, Parser
from documents.filters.paths import Place, has_kind, items_of
from documents.filters.values import ValueRefused, coerce
from documents.shapes import NUMERIC, Fields, FieldType, Kind

_PARAMETER = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LITERALS = {"true": True, "false": False}
_OPERATORS = {op.value.removeprefix("$"): op for op in Operator}
_LISTS = frozenset({Operator.IN, Operator.NIN, Operator.ALL})


@dataclass(frozen=True, slots=True)
class ShortForm:
    """One parameter: public path, operator, and the JSON value that `parse_filter` takes in its place."""

    path: str
    operator: Operator
    value: object
    loc: Loc


def expand_short(params: Sequence[tuple[str, str]], fields: Fields, *, loc: Loc = ("query",)) -> tuple[ShortForm, ...]:
    """The conditions that a URL's parameters mean, in their order; values are typed but not yet checked.

    Raises FilterRefused for unknown fields and operators; the place of a fault is `loc` and the parameter's
    name.
    """
    parser = Parser(fields)
    forms = tuple(form for form, _ in _expand(params, parser, loc))
    parser.refuse_faults()
    return forms


def parse_short(params: Sequence[tuple[str, str]], fields: Fields, *, loc: Loc = ("query",)) -> Filter:
    """The filter that a URL's parameters mean. Raises FilterRefused as `parse_filter` does."""
    parser = Parser(fields)
    parts = [
        parser.operation(form.operator.value, form.value, place, form.loc, 0)
        for form, place in _expand(params, parser, loc)
    ]
    parser.refuse_faults()
    return conjunction(parts)


def _expand(params: Sequence[tuple[str, str]], parser: Parser, loc: Loc) -> list[tuple[ShortForm, Place]]:
    found: list[tuple[ShortForm, Place]] = []
    for name, text in params:
        here = (*loc, name)
        parts = _PARAMETER.fullmatch(name)
        # A malformed name is not the name of any field.
        place = parser.place(parts[1] if parts else "", parser.scope, here)
        if parts is None or place is None:
            continue
        op = _OPERATORS.get(parts[2] if parts[2] is not None else "eq")
        if op is None:
            parser.faults.append(Fault(here, f"unknown operator {parts[2][:40]}", "unknown_operator"))
            continue
        found.append((ShortForm(parts[1], op, _operand(op, text, place.type), here), place))
    return found


def _operand(op: Operator, text: str, type_: FieldType) -> object:
    match op:
        case Operator.CONTAINS | Operator.STARTSWITH:
            return text
        case Operator.EXISTS:
            return _LITERALS.get(text, text)
        case Operator.SIZE:
            return _typed(text, FieldType(Kind.INTEGER))
    if op in _LISTS:
        return [_typed(member, type_) for member in text.split(",")]
    return _typed(text, type_)


def _typed(text: str, type_: FieldType) -> object:
    """The JSON value that `text` means for the type, or `text` itself, for the parser to refuse."""
    if type_.kind is Kind.STRING:
        return text
    if type_.kind is Kind.ARRAY:
        return _typed(text, items_of(type_))
    if type_.kind is Kind.UNION:
        return _typed_as_alternative(text, type_)
    if text == "null":
        return None
    if type_.kind in (Kind.BOOLEAN, Kind.ANY) and text in _LITERALS:
        return _LITERALS[text]
    # Decimals stay text, which keeps all their digits.
    if type_.kind in (NUMERIC | {Kind.ANY}) - {Kind.DECIMAL} and len(text) <= 400 and _NUMBER.fullmatch(text):
        return json.loads(text)
    return text


def _typed_as_alternative(text: str, type_: FieldType) -> object:
    if text == "null":
        return text if has_kind(type_, Kind.STRING) else None
    for alternative in type_.alternatives:
        value = _typed(text, alternative)
        try:
            coerce(value, alternative)
        except ValueRefused:
            continue
        return value
    return text
