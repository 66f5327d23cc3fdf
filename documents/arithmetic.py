"""Arithmetic of BSON numbers, exact or refused.

Types combine as MongoDB's `$inc` and `$mul` combine them: with a decimal to a decimal, with a double to a double, and
integers stay integers.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from bson import Decimal128
from bson.decimal128 import create_decimal128_context

from documents.filters.values import ValueRefused, coerce
from documents.input import MAX_INTEGER
from documents.shapes import FieldType, Kind

Number = int | float | Decimal128

_EXACT = create_decimal128_context()
_EXACT.traps[decimal.Inexact] = True


def operand(value: Any, field_type: FieldType) -> Number:
    """What a client gives to add or multiply by: a number, or for a decimal field also a text that holds one.

    Raises ValueRefused.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueRefused("a number is expected")
    if _is_decimal(field_type):
        return coerce(value, FieldType(Kind.DECIMAL))  # type: ignore[no-any-return]
    if isinstance(value, str):
        raise ValueRefused("a number is expected")
    return value


def add(a: Any, b: Number) -> Number:
    """The sum. Raises ValueRefused where `a` is no number, and where the sum cannot be stored exactly."""
    return _combined(a, b, lambda x, y: x + y, _EXACT.add)


def multiply(a: Any, b: Number) -> Number:
    """The product; refuses as `add` does."""
    return _combined(a, b, lambda x, y: x * y, _EXACT.multiply)


def zero_like(number: Number) -> Number:
    """Zero of the same type: what a field that is not there becomes when it is multiplied."""
    return Decimal128("0") if isinstance(number, Decimal128) else type(number)(0)


def _combined(
    a: Any, b: Number, plain: Callable[[Any, Any], Any], exact: Callable[[Decimal, Decimal], Decimal]
) -> Number:
    if isinstance(a, bool) or not isinstance(a, int | float | Decimal128):
        raise ValueRefused("the field holds no number")
    if isinstance(a, Decimal128) or isinstance(b, Decimal128):
        try:
            result = Decimal128(exact(_decimal(a), _decimal(b)))
        except decimal.DecimalException:
            raise ValueRefused("the result has more than 34 digits, or is no number", "decimal") from None
        if not result.to_decimal().is_finite():
            raise ValueRefused("the result is not finite", "finite_number")
        return result
    try:
        number: int | float = plain(a, b)
    except OverflowError:  # an integer too great for a double
        raise ValueRefused("the result is out of range", "int_range") from None
    if isinstance(number, float):
        if not math.isfinite(number):
            raise ValueRefused("the result is not finite", "finite_number")
    elif abs(number) > MAX_INTEGER:
        raise ValueRefused("the result is beyond ±(2^53-1)", "int_range")
    return number


def _decimal(number: Number) -> Decimal:
    """A double counts as its shortest decimal form, the one that JSON has: 0.1, and not 0.1000000000000000055."""
    if isinstance(number, Decimal128):
        return number.to_decimal()
    return Decimal(repr(number) if isinstance(number, float) else int(number))


def _is_decimal(field_type: FieldType) -> bool:
    return field_type.kind is Kind.DECIMAL or any(map(_is_decimal, field_type.alternatives))
