"""The declared fields and the stored values that the tests of this folder share."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp

from documents.shapes import Field, Fields, FieldType, Kind


def _fields(**types: FieldType) -> dict[str, Field]:
    return {name: Field(name, "id" if name == "_id" else name, type_, required=False) for name, type_ in types.items()}


_STRING = FieldType(Kind.STRING)
_INTEGER = FieldType(Kind.INTEGER)
_INTEGERS = FieldType(Kind.ARRAY, item=_INTEGER)

FIELDS: Fields = _fields(
    _id=FieldType(Kind.OBJECT_ID),
    title=_STRING,
    status=FieldType(Kind.STRING, choices=("draft", "published", "hidden")),
    score=_INTEGER,
    ratio=FieldType(Kind.NUMBER),
    cost=FieldType(Kind.DECIMAL),
    done=FieldType(Kind.BOOLEAN),
    due=FieldType(Kind.DATETIME, nullable=True),
    owner_id=FieldType(Kind.OBJECT_ID),
    token=FieldType(Kind.UUID),
    blob=FieldType(Kind.BINARY),
    tags=FieldType(Kind.ARRAY, item=_STRING),
    scores=_INTEGERS,
    grid=FieldType(Kind.ARRAY, item=_INTEGERS),
    address=FieldType(
        Kind.OBJECT,
        fields=_fields(
            city=_STRING,
            place=FieldType(Kind.OBJECT, fields=_fields(latitude=FieldType(Kind.NUMBER))),
            codes=_INTEGERS,
        ),
    ),
    items=FieldType(
        Kind.ARRAY,
        item=FieldType(Kind.OBJECT, fields=_fields(name=_STRING, quantity=_INTEGER, marks=_INTEGERS)),
    ),
    labels=FieldType(Kind.MAP, item=_STRING),
    mixed=FieldType(Kind.UNION, alternatives=(_INTEGER, FieldType(Kind.DATETIME), _STRING)),
    extra=FieldType(Kind.ANY),
)

OBJECT_IDS = (ObjectId("65a000000000000000000001"), ObjectId("65a000000000000000000002"))
MOMENTS = (
    dt.datetime(2024, 5, 1, 12, 0, 0, 123000, tzinfo=dt.UTC),
    dt.datetime(1969, 12, 31, tzinfo=dt.UTC),
)
TOKEN = uuid.UUID("7a345678-1234-5678-1234-567812345678")

#: Few different values, so that random filters meet them. Fractions are binary ones (see test_agreement).
NUMBERS: tuple[Any, ...] = (
    0, 1, 2, -1, 1.5, 2.0, -0.0, float("nan"), float("inf"), float(2**53), Int64(2), Int64(2**53 + 1),
    Decimal128("1.5"), Decimal128("2.00"), Decimal128("NaN"), Decimal128("-Infinity"),
    Decimal128("9007199254740993"),
)  # fmt: skip
STRINGS = (
    "",
    "a",
    "A",
    "ab",
    "Straße",
    "STRASSE",
    "x.y*",
    "2",
    "\u212a",
    "i\u0307",
    "İ",
    "line\nbreak",
    "published",
)
SCALARS: tuple[Any, ...] = (
    None, True, False, *NUMBERS, *STRINGS, *OBJECT_IDS, *MOMENTS,
    b"x", b"xy", Binary.from_uuid(TOKEN),
)  # fmt: skip
#: Stored values of types that no filter can name.
FOREIGN: tuple[Any, ...] = (Timestamp(1, 1), MinKey(), MaxKey())
