"""Clients' JSON on its way into documents: what is refused before and after the class itself has its say.

Everything here raises `DocumentRefused` with the place of each fault, and changes nothing.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import orjson
from beanie.odm.utils.encoder import Encoder
from bson import DatetimeMS, Decimal128, ObjectId, Timestamp
from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core import ErrorDetails

from documents.errors import DocumentRefused, Fault
from documents.resources import KEPT_BY_SERVER, LiveDocument, ResourceClass
from documents.shapes import Fields, FieldType, Kind
from documents.sorting import order_key

#: Integers beyond this are not the same number in every JSON reader (RFC 8259, section 6).
MAX_INTEGER = 2**53 - 1
#: What is wrong with so many fields is wrong altogether.
MAX_FAULTS = 100
#: BSON allows 100 levels; a person's document needs far fewer, and each level costs stack on the way.
MAX_DEPTH = 40

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LATEST = dt.datetime.max.replace(tzinfo=dt.UTC) - dt.timedelta(days=2)
_EARLIEST = dt.datetime.min.replace(tzinfo=dt.UTC) + dt.timedelta(days=2)

Loc = tuple[str | int, ...]


def refuse_unknown(body: Any, writable: Fields, known: Fields, *, loc: Loc = ("body",)) -> dict[str, Any]:
    """`body` as an object whose keys are all writable fields with JSON that BSON can hold.

    `known` are the fields that the caller may see: they are named as read-only, all others as unknown, so that the
    answer does not tell of hidden fields.
    """
    if not isinstance(body, dict):
        raise DocumentRefused([Fault(loc, "a JSON object is expected", "object_type")])
    faults: list[Fault] = []
    public = {f.public for f in known.values()}
    for key, value in body.items():
        if key not in writable:
            if key in public:
                faults.append(Fault((*loc, key), "the server sets this field", "read_only"))
            else:
                faults.append(Fault((*loc, key), "there is no such field", "extra_forbidden"))
            if len(faults) >= MAX_FAULTS:
                break
            continue
        faults.extend(faults_of(value, writable[key].type, (*loc, key), 1))
    if faults:
        raise DocumentRefused(faults)
    return body


def refuse_unstorable(value: Any, *, loc: Loc = ("body",)) -> None:
    """Raise DocumentRefused for JSON that BSON cannot hold, whatever it is for."""
    if faults := list(faults_of(value, None, loc, 1)):
        raise DocumentRefused(faults)


def faults_of(value: Any, field_type: FieldType | None, loc: Loc, depth: int) -> Iterator[Fault]:
    """What in a client's value at `loc`, `depth` levels below the document, no BSON document may hold, and what no
    field of `field_type` (None: any)."""
    if depth > MAX_DEPTH:
        yield Fault(loc, f"nested deeper than {MAX_DEPTH} levels", "too_deep")
    elif isinstance(value, dict):
        yield from _faults_of_object(value, field_type, loc, depth)
    elif isinstance(value, list):
        item = field_type.item if field_type is not None and field_type.kind is Kind.ARRAY else None
        for position, inner in enumerate(value):
            yield from faults_of(inner, item, (*loc, position), depth + 1)
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            yield Fault(loc, "the integer is beyond ±(2^53-1)", "int_range")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield Fault(loc, "a finite number is expected", "finite_number")
    elif isinstance(value, str):
        if _SURROGATE.search(value):
            yield Fault(loc, "the text holds half of a surrogate pair", "string_unicode")
        elif field_type is not None:
            yield from faults_of_text(value, field_type, loc)


def _faults_of_object(value: dict[str, Any], field_type: FieldType | None, loc: Loc, depth: int) -> Iterator[Fault]:
    declared = field_type.fields if field_type is not None and field_type.kind is Kind.OBJECT else None
    for key, inner in value.items():
        place = (*loc, key)
        if "." in key or key.startswith("$") or "\0" in key:
            yield Fault(place, "a key may not start with `$` nor contain a dot or a null character", "key_name")
        elif _SURROGATE.search(key):
            # The key itself could not be written into the answer.
            yield Fault(loc, "a key holds half of a surrogate pair", "string_unicode")
        elif declared is not None:
            if key in declared:
                yield from faults_of(inner, declared[key].type, place, depth + 1)
            else:
                yield Fault(place, "there is no such field", "extra_forbidden")
        else:
            item = field_type.item if field_type is not None and field_type.kind is Kind.MAP else None
            yield from faults_of(inner, item, place, depth + 1)


def faults_of_text(value: str, field_type: FieldType, loc: Loc) -> Iterator[Fault]:
    """What is wrong with a text that stands for a value of `field_type`, beyond what pydantic finds."""
    if field_type.kind is Kind.DATETIME:
        if not _RFC3339.fullmatch(value):
            yield Fault(loc, "a time is written as in RFC 3339 with its offset: 2026-01-31T12:00:00Z", "datetime")
    elif field_type.kind is Kind.DECIMAL:
        try:
            Decimal128(decimal.Decimal(value))
        except (decimal.DecimalException, ValueError):
            yield Fault(loc, "a decimal number of at most 34 digits is expected (IEEE 754 decimal128)", "decimal")
        else:
            if not decimal.Decimal(value).is_finite():
                yield Fault(loc, "a finite number is expected", "finite_number")


def parse_values(form: type[BaseModel], values: Mapping[str, Any], *, loc: Loc = ("body",)) -> dict[str, Any]:
    """The fields that `values` sets, as Python values, by pydantic's strict JSON rules: no text as number."""
    try:
        parsed = form.model_validate_json(orjson.dumps(values), strict=True)
    except ValidationError as error:
        raise DocumentRefused(faults_from(error, loc)) from None
    return {name: getattr(parsed, name) for name in parsed.model_fields_set}


def validate_whole(resource: ResourceClass, values: Mapping[str, Any], *, loc: Loc = ("body",)) -> dict[str, Any]:
    """The complete document as BSON values, validated by its class. Fields that are None by default are left out.

    `values` are Python values by stored name. Fields that are unknown to the class are not part of the result.
    """
    try:
        document = resource.document_class.model_validate(values)
    except ValidationError as error:
        raise DocumentRefused(faults_from(error, loc)) from None
    except (OverflowError, RecursionError) as error:
        raise DocumentRefused([Fault(loc, f"a value is out of range ({error})", "value_error")]) from None
    return to_bson(resource, document, loc)


def to_bson(resource: ResourceClass, document: LiveDocument, loc: Loc) -> dict[str, Any]:
    """A document instance as it is stored: `_id`, the class's fields in their order, the bookkeeping last."""
    stored: dict[str, Any] = {}
    last: dict[str, Any] = {}
    infos = {info.alias or name: (name, info) for name, info in resource.document_class.model_fields.items()}
    for name in ("_id", *(name for name in resource.fields if name != "_id")):
        attribute, info = infos[name]
        value = getattr(document, attribute)
        # Where absence means something else than null, null is written out.
        if value is None and not info.is_required() and info.default is None and info.default_factory is None:
            continue
        target = last if name in KEPT_BY_SERVER else stored
        place = (*loc, "id" if name == "_id" else name)
        try:
            target[name] = _storable(_ENCODER.encode(value), place)
        except (decimal.DecimalException, ValueError) as error:
            raise DocumentRefused(
                [Fault(place, f"the value has no form in BSON ({type(error).__name__})", "unstorable")]
            ) from None
    return stored | {name: last[name] for name in KEPT_BY_SERVER if name in last}


def bson_value(value: Any, loc: Loc) -> Any:
    """One Python value as BSON. Raises DocumentRefused for a value that BSON cannot hold."""
    try:
        stored = _storable(_ENCODER.encode(value), loc)
    except (decimal.DecimalException, ValueError) as error:
        msg = f"the value has no form in BSON ({type(error).__name__})"
        raise DocumentRefused([Fault(loc, msg, "unstorable")]) from None
    if isinstance(stored, int) and abs(stored) > MAX_INTEGER:
        raise DocumentRefused([Fault(loc, "the integer is beyond ±(2^53-1)", "int_range")])
    return stored


def _in_order(values: Iterable[Any]) -> list[Any]:
    """A set as an array. Sorted: Python's order of a set differs from process to process, which would look like a
    change of the document."""
    return sorted((_ENCODER.encode(value) for value in values), key=order_key)


def _of_model(model: BaseModel) -> Any:
    """A nested model's fields. Beanie's own way reads an attribute that pydantic deprecates, with a warning each."""
    if isinstance(model, RootModel):
        return _ENCODER.encode(model.root)
    fields = type(model).model_fields.items()
    return {info.alias or name: _ENCODER.encode(getattr(model, name)) for name, info in fields}


_ENCODER = Encoder(
    to_db=True,
    keep_nulls=True,
    # Beanie does not know all BSON types that a hand-written document may hold where the class says `Any`.
    custom_encoders={
        set: _in_order,
        frozenset: _in_order,
        BaseModel: _of_model,
        Timestamp: lambda value: value,
        DatetimeMS: lambda value: value,
    },
)


def _storable(value: Any, loc: Loc) -> Any:
    """Cut times to the millisecond in UTC, so that what is answered now is what will be read later."""
    if isinstance(value, dt.datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        if not _EARLIEST <= aware <= _LATEST:
            raise DocumentRefused([Fault(loc, "the time is out of range", "datetime")])
        aware = aware.astimezone(dt.UTC)
        return aware.replace(microsecond=aware.microsecond // 1000 * 1000)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, ObjectId):
        return ObjectId(value)  # plain, also where the class says PydanticObjectId
    if isinstance(value, dict):
        return {key: _storable(inner, (*loc, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_storable(inner, (*loc, i)) for i, inner in enumerate(value)]
    return value


def to_python(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored document as values that pydantic accepts: decimals become `decimal.Decimal`."""
    return {key: _python_value(value) for key, value in stored.items()}


def _python_value(value: Any) -> Any:
    if isinstance(value, Decimal128):
        return value.to_decimal()
    if isinstance(value, Mapping):
        return {key: _python_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_python_value(inner) for inner in value]
    return value


def merge(target: Any, patch: Any) -> Any:
    """JSON Merge Patch (RFC 7396, section 2) of one value. Neither argument is changed.

    The depth of `patch` must have been bounded before.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def masked(faults: Sequence[Fault], visible: Fields, *, loc: Loc = ("body",)) -> list[Fault]:
    """`faults` as a caller may read them who sees the fields `visible`: those in other fields become one that names
    none of them."""
    public = {f.public for f in visible.values()}
    shown = [f for f in faults if len(f.loc) <= len(loc) or f.loc[len(loc)] in public]
    if len(shown) < len(faults):
        shown.append(Fault(loc, "the document has a fault in a field that you cannot see", "hidden_field"))
    return shown


def faults_from(error: ValidationError, loc: Loc) -> list[Fault]:
    """pydantic's errors as faults. Input values are left out: they may be secrets."""
    return [Fault((*loc, *_public_loc(entry)), entry["msg"], entry["type"]) for entry in error.errors()]


def _public_loc(entry: ErrorDetails) -> Loc:
    return tuple("id" if part == "_id" else part for part in entry["loc"])
