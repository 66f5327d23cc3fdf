"""The public JSON form of stored documents, and the entity tag derived from it.

Conversion reads the stored BSON along the class's declared fields. It never validates, so that a document which
breaks the rules is served as far as it can be; and it never serves a field that the class does not declare.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import re
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp, json_util
from bson.binary import UUID_SUBTYPE
from bson.codec_options import DatetimeConversion

from documents.resources import BOOKKEEPING, KEPT_BY_SERVER, MAX_ID, RESERVED_IDS
from documents.shapes import Field, Fields, FieldType, Kind

Converter = Callable[[Any], Any]
Faults = Callable[[Mapping[str, Any]], Sequence[str]]

#: The member of a served document that names the fields in which it breaks the rules of its class.
INVALID = "invalid"


def rfc3339(moment: dt.datetime) -> str:
    """A time as RFC 3339 in UTC to the millisecond: `2026-01-31T12:00:00.000Z`.

    A naive time is taken as UTC, which is how BSON means it.
    """
    if moment.tzinfo is not None and moment.utcoffset():
        moment = moment.astimezone(dt.UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _same(value: Any) -> Any:
    return value


def _plain_binary(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _far_time(value: DatetimeMS) -> str:
    """A time whose year Python does not have, in ECMAScript's expanded years: `+010000-01-01T00:00:00.000Z`."""
    seconds, milliseconds = divmod(int(value), 1000)
    # The calendar repeats every 400 years.
    cycles, seconds = divmod(seconds, _CYCLE_SECONDS)
    moment = _EPOCH + dt.timedelta(seconds=seconds, milliseconds=milliseconds)
    year = moment.year + 400 * cycles
    if 0 <= year <= 9999:
        return f"{year:04}{rfc3339(moment)[4:]}"
    return f"{year:+07}{rfc3339(moment)[4:]}"


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_CYCLE_SECONDS = 146_097 * 86_400


def _binary(value: Binary) -> str:
    if value.subtype in (3, 4) and len(value) == 16:
        return str(value.as_uuid(value.subtype))
    return _plain_binary(value)


_BY_TYPE: dict[type, Converter] = {
    str: _same,
    bool: _same,
    int: _same,
    float: _same,
    type(None): _same,
    ObjectId: str,
    dt.datetime: rfc3339,
    DatetimeMS: _far_time,
    Decimal128: str,
    uuid.UUID: str,
    bytes: _plain_binary,
    Binary: _binary,
    Timestamp: lambda value: rfc3339(value.as_datetime()),
    Regex: lambda value: f"/{value.pattern}/",
    re.Pattern: lambda value: f"/{value.pattern}/",
    Code: str,
    DBRef: lambda value: str(value.id),
    MinKey: lambda _: None,
    MaxKey: lambda _: None,
}


def public_value(value: Any) -> Any:
    """Any BSON value as JSON: ids and decimals as strings, times as RFC 3339, binary as base64.

    Values that JSON cannot hold (NaN, infinities) become null when encoded.
    """
    converter = _BY_TYPE.get(type(value))
    if converter is not None:
        return converter(value)
    if isinstance(value, Mapping):
        return {key: public_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [public_value(inner) for inner in value]
    if isinstance(value, int):  # Int64
        return int(value)
    return str(value)


def _converter(field_type: FieldType) -> Converter:
    """How to convert a value of this declared type; the same as `public_value` but for undeclared nested fields."""
    members = _members(field_type)
    if any(m.kind is Kind.ANY for m in members) or not any(map(_has_fields, members)):
        return public_value
    items = [m.item for m in members if m.kind is Kind.ARRAY and m.item is not None]
    values = [m.item for m in members if m.kind is Kind.MAP and m.item is not None]
    objects = [m.fields for m in members if m.kind is Kind.OBJECT and m.fields is not None]
    of_item = _converter(_either(items)) if items else None
    of_value = _converter(_either(values)) if values else None
    of_object = _object_converter(_merged(objects)) if objects else None

    # A value in the wrong place (a document instead of an array of them) is read as what it would be in its own.
    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            if of_value is not None:
                return {key: of_value(held) for key, held in value.items()}
            return (of_object or of_item or public_value)(value)
        if isinstance(value, list):
            return [(of_item or convert)(inner) for inner in value]
        return public_value(value)

    return convert


def _members(field_type: FieldType) -> list[FieldType]:
    if field_type.kind is not Kind.UNION:
        return [field_type]
    return [member for alternative in field_type.alternatives for member in _members(alternative)]


def _either(types: list[FieldType]) -> FieldType:
    return types[0] if len(types) == 1 else FieldType(Kind.UNION, alternatives=tuple(types))


def _has_fields(field_type: FieldType) -> bool:
    inner = (*field_type.alternatives, *([field_type.item] if field_type.item is not None else []))
    return field_type.kind is Kind.OBJECT or any(map(_has_fields, inner))


def _merged(objects: list[Fields]) -> Fields:
    """The fields of all alternatives: which of them a stored document is meant to be cannot be told."""
    merged: dict[str, Field] = {}
    for fields in objects:
        for name, declared in fields.items():
            known = merged.get(name)
            merged[name] = declared if known is None else replace(known, type=_either([known.type, declared.type]))
    return merged


#: Begins the public form of an id of another type than its class declares.
FOREIGN_ID = "~"
EXTENDED_JSON = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL,
    uuid_representation=UUID_SUBTYPE,
    tz_aware=True,
    tzinfo=dt.UTC,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)


def public_id(value: Any, kind: Kind) -> str:
    """The `_id` of a document, whose class declares ids of `kind`, as a string that can stand in a path.

    An id of another type, which only a direct write makes, is a `~` and its canonical extended JSON; so is a text that
    cannot be a segment of a path. Two different ids never look alike.
    """
    if isinstance(value, Binary) and value.subtype == UUID_SUBTYPE and len(value) == 16:
        value = value.as_uuid()
    match kind:
        case Kind.OBJECT_ID if isinstance(value, ObjectId):
            return str(value)
        case Kind.UUID if isinstance(value, uuid.UUID):
            return str(value)
        case Kind.INTEGER if (number := _whole(value)) is not None:
            return str(number)
        case Kind.STRING if isinstance(value, str) and _is_segment(value):
            return str(value)
    # Within JSON's texts alone can there be a slash, and there it may be written like this.
    return FOREIGN_ID + json_util.dumps(value, json_options=EXTENDED_JSON).replace("/", "\\u002f")


def _whole(value: Any) -> int | None:
    """The integer that MongoDB holds to be the same as `value`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= 2**53 else None
    if isinstance(value, Decimal128):
        number = value.to_decimal()
        return int(number) if number.is_finite() and abs(number) <= 2**53 and number == int(number) else None
    return None


def _is_segment(text: str) -> bool:
    if not 0 < len(text) <= MAX_ID or text in RESERVED_IDS or text in (".", ".."):
        return False
    return not text.startswith(FOREIGN_ID) and "/" not in text and "\0" not in text


def _object_converter(fields: Fields) -> Converter:
    converters = [(f.name, f.public, _id_converter(f) or _converter(f.type)) for f in fields.values()]

    def convert(document: Mapping[str, Any]) -> dict[str, Any]:
        return {public: convert(document[name]) for name, public, convert in converters if name in document}

    return convert


def _id_converter(field: Field) -> Converter | None:
    return partial(public_id, kind=field.type.kind) if field.name == "_id" else None


class PublicForm:
    """Turns stored documents of one class into what callers with one set of visible fields see.

    Shareable; building one walks the class's fields, converting a document does not. `names` are the public names of
    the fields, in the order in which documents have them. `faults` gives the stored names of the fields in which a
    document breaks the rules of its class; without it, none does.
    """

    def __init__(self, visible: Fields, faults: Faults | None = None) -> None:
        # The id leads, the bookkeeping follows the class's own fields, as a person would write it.
        ordered = sorted(visible.values(), key=lambda f: (f.name != "_id", f.name in KEPT_BY_SERVER))
        self.names = tuple(f.public for f in ordered)
        self._stored_names = tuple(f.name for f in ordered)
        self._convert = _object_converter({f.name: f for f in ordered})
        self._faults = faults

    def content(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The document's fields as JSON-ready values. Those that are not stored are absent."""
        return self._convert(stored)  # type: ignore[no-any-return]

    def document(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The document as it is served: its content and, where it breaks the rules of its class, `invalid` with the
        names of those fields that this caller sees."""
        document = self.content(stored)
        if self._faults is not None and (faults := self._faults(stored)):
            pairs = zip(self._stored_names, self.names, strict=True)
            if invalid := [public for name, public in pairs if name in faults]:
                document[INVALID] = invalid
        return document

    def etag(self, document: Mapping[str, Any]) -> str:
        """The strong entity tag (RFC 9110, 8.8.3) of a document in its public form, quotes included.

        Derived from the content that this caller sees; the bookkeeping fields do not enter it, so it survives a
        write that changed nothing.
        """
        content = {key: value for key, value in document.items() if key not in BOOKKEEPING}
        if INVALID in document:
            content[INVALID] = [name for name in document[INVALID] if name not in BOOKKEEPING]
        encoded = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.blake2b(encoded, digest_size=15).digest()
        return f'"{base64.urlsafe_b64encode(digest).decode("ascii")}"'


def encode_json(value: Any) -> bytes:
    """JSON in UTF-8. Accepts what `public_value` returns."""
    return orjson.dumps(value)


def selected(document: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    """The members `names` of a public document, its id, and which of these are invalid."""
    chosen = {name: value for name, value in document.items() if name in names or name == "id"}
    if invalid := [name for name in document.get(INVALID, ()) if name in names or name == "id"]:
        chosen[INVALID] = invalid
    return chosen


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of the fields, bookkeeping left out, that differ between two public documents, in `after`'s order.

    One that is invalid in only one of the two differs, even where both look alike.
    """
    names = [*after, *(name for name in before if name not in after)]
    marked = set(before.get(INVALID, ())) ^ set(after.get(INVALID, ()))
    return [
        name
        for name in names
        if name not in BOOKKEEPING
        and name != INVALID
        and (name in marked or not _equal(before.get(name, _MISSING), after.get(name, _MISSING)))
    ]


_MISSING = object()


def _equal(a: Any, b: Any) -> bool:
    if type(a) is not type(b):  # True == 1 and 1 == 1.0 in Python, yet they read differently in JSON
        return False
    if isinstance(a, dict | list):
        return orjson.dumps(a, option=orjson.OPT_SORT_KEYS) == orjson.dumps(b, option=orjson.OPT_SORT_KEYS)
    return bool(a == b) or (a != a and b != b)  # NaN stayed NaN
