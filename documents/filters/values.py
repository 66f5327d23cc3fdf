"""JSON values of clients' filters → BSON values, by the field's declared type."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import math
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from bson import Decimal128, ObjectId

from documents.filters import patterns
from documents.shapes import NUMERIC, FieldType, Kind

MAX_VALUES: Final = 100
#: The greatest integer that every JSON implementation keeps exactly (RFC 8259, section 6).
MAX_INTEGER: Final = 2**53 - 1

_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")
_DECIMAL128 = decimal.Context(
    prec=34,
    Emin=-6143,
    Emax=6144,
    clamp=1,
    traps=[decimal.Inexact, decimal.Overflow, decimal.InvalidOperation],
)

_EXPECTED = {
    Kind.STRING: "a string",
    Kind.INTEGER: "a number",
    Kind.NUMBER: "a number",
    Kind.DECIMAL: "a number, or a string that holds one, of at most 34 digits",
    Kind.BOOLEAN: "true or false",
    Kind.DATETIME: "an RFC 3339 date-time with an offset, such as 2024-05-01T12:00:00Z",
    Kind.OBJECT_ID: "an object id of 24 hexadecimal digits",
    Kind.UUID: "a UUID",
    Kind.BINARY: "base64",
}


class ValueRefused(Exception):
    """A value does not fit the type. `at` is the place below the value itself: an index in a list."""

    def __init__(self, msg: str, type: str = "type_error", at: tuple[int, ...] = ()) -> None:
        self.msg, self.type, self.at = msg, type, at
        super().__init__(msg)


def coerce(value: object, type_: FieldType, *, choose: bool = True, lists: bool = True) -> Any:
    """`value` as it is stored in a field of this type. Raises ValueRefused.

    For an ARRAY that is one element or, with `lists`, a list of all of them. `choose` demands one of the
    declared choices. `None` is refused here: where null may stand is the operator's affair.
    """
    if isinstance(value, dict):
        raise ValueRefused("objects cannot be compared as a whole; use dotted paths to their fields")
    if type_.kind is Kind.ARRAY:
        return _coerce_array(value, type_.item or FieldType(Kind.ANY), choose, lists)
    if type_.kind is Kind.UNION:
        return _coerce_union(value, type_, choose, lists)
    if type_.kind in (Kind.OBJECT, Kind.MAP):
        raise ValueRefused("objects cannot be compared as a whole; use dotted paths to their fields")
    if type_.kind is Kind.ANY:
        return _coerce_any(value, lists)
    converted = _SCALARS[type_.kind](value)
    if converted is None:
        raise ValueRefused(f"expected {_EXPECTED[type_.kind]}")
    if choose and type_.choices and converted not in type_.choices:
        raise ValueRefused(f"expected one of: {', '.join(map(str, type_.choices))}", "value_error")
    return converted


def coerce_text(value: object) -> str:
    """The operand of `$contains` and `$startswith`. Raises ValueRefused."""
    text = _string(value)
    if text is None:
        raise ValueRefused(f"expected {_EXPECTED[Kind.STRING]}")
    if not text:
        raise ValueRefused("an empty text is found in every string", "value_error")
    if "\0" in text:
        raise ValueRefused("the text must not hold U+0000", "value_error")
    if len(patterns.contains_pattern(text)) > patterns.MAX_TEXT:
        raise ValueRefused(f"the text is too long: {patterns.MAX_TEXT // 4} letters are allowed", "too_long")
    return text


def check_length(values: list[Any]) -> None:
    """Refuse a list that is too long. Raises ValueRefused."""
    if len(values) > MAX_VALUES:
        raise ValueRefused(f"more than {MAX_VALUES} values", "too_many_values")


def _coerce_array(value: object, item: FieldType, choose: bool, lists: bool) -> Any:
    if not isinstance(value, list):
        return coerce(value, item, choose=choose, lists=lists)
    if not lists:
        raise ValueRefused("expected one value, not a list")
    check_length(value)
    elements = []
    # Below `Any` lists hold scalars only: how deep clients nest them must not be how deep this recurses.
    deeper = item.kind is not Kind.ANY
    for index, element in enumerate(value):
        try:
            elements.append(None if element is None else coerce(element, item, choose=choose, lists=deeper))
        except ValueRefused as refused:
            raise ValueRefused(refused.msg, refused.type, (index, *refused.at)) from None
    return elements


def _coerce_union(value: object, type_: FieldType, choose: bool, lists: bool) -> Any:
    for alternative in type_.alternatives:
        try:
            return coerce(value, alternative, choose=choose, lists=lists)
        except ValueRefused as refused:
            if refused.type == "too_many_values":
                raise
    raise ValueRefused(f"expected one of these types: {', '.join(a.kind for a in type_.alternatives)}")


def _coerce_any(value: object, lists: bool) -> Any:
    if isinstance(value, list):
        return _coerce_array(value, FieldType(Kind.ANY), False, lists)
    if isinstance(value, bool):
        return value
    converted = _number(value) if isinstance(value, int | float) else _string(value)
    if converted is None:
        raise ValueRefused("expected a string, a number, true or false")
    return converted


def _string(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    if _SURROGATE.search(value):
        raise ValueRefused("the string holds half of a surrogate pair", "value_error")
    return value


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueRefused(f"integers beyond ±{MAX_INTEGER} are not exact in JSON", "value_error")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueRefused("the number is not finite", "value_error")
    return value


def _decimal(value: object) -> Decimal128 | None:
    if not isinstance(value, str):
        number = _number(value)
        return None if number is None else Decimal128(str(number))
    if len(value) > 100 or not _NUMBER.fullmatch(value):
        return None
    try:
        return Decimal128(_DECIMAL128.create_decimal(Decimal(value)))
    except decimal.DecimalException:
        return None


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _date_time(value: object) -> dt.datetime | None:
    if not isinstance(value, str) or not _DATE_TIME.fullmatch(value):
        return None
    try:
        moment = dt.datetime.fromisoformat(value.upper()).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _object_id(value: object) -> ObjectId | None:
    return ObjectId(value) if isinstance(value, str) and _OBJECT_ID.fullmatch(value) else None


def _uuid(value: object) -> uuid.UUID | None:
    return uuid.UUID(value) if isinstance(value, str) and _UUID.fullmatch(value) else None


def _binary(value: object) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None


_SCALARS: dict[Kind, Callable[[object], Any]] = dict.fromkeys(NUMERIC, _number) | {
    Kind.STRING: _string,
    Kind.DECIMAL: _decimal,
    Kind.BOOLEAN: _boolean,
    Kind.DATETIME: _date_time,
    Kind.OBJECT_ID: _object_id,
    Kind.UUID: _uuid,
    Kind.BINARY: _binary,
}
