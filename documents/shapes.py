"""The shape of a document class: its fields as a tree of BSON types.

Everything that has to know a field's stored type reads this tree and not pydantic's annotations: the filter
parser coerces values by it, the `$jsonSchema` validator is generated from it, and the public JSON form of a
stored document is produced along it.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
import types
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
from bson import ObjectId
from pydantic import AnyUrl, BaseModel, EmailStr, RootModel, SecretStr
from pydantic.fields import FieldInfo

from documents.errors import DeclarationError
from documents.markers import Marker


class Kind(enum.StrEnum):
    """A stored type. The values are the names used in messages to API clients."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    DATETIME = "date-time"
    OBJECT_ID = "object id"
    UUID = "uuid"
    BINARY = "binary"
    OBJECT = "object"
    MAP = "map"
    ARRAY = "array"
    UNION = "union"
    ANY = "any"


#: Kinds that MongoDB compares with each other by value (BSON numbers).
NUMERIC = frozenset({Kind.INTEGER, Kind.NUMBER, Kind.DECIMAL})


@dataclass(frozen=True, slots=True)
class FieldType:
    """One node of the tree.

    `item` is the type of an ARRAY's elements or of a MAP's values; `fields` are an OBJECT's own fields by stored
    name; `alternatives` are a UNION's members. `choices` are the only permitted values, as stored.
    `constraints` uses JSON Schema's names (`minLength`, `maximum`, `pattern`, ...).
    """

    kind: Kind
    nullable: bool = False
    item: FieldType | None = None
    fields: Mapping[str, Field] | None = None
    alternatives: tuple[FieldType, ...] = ()
    choices: tuple[Any, ...] = ()
    constraints: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Field:
    """A declared field: `name` is its name in MongoDB, `public` its name in JSON (they differ for `_id` only)."""

    name: str
    public: str
    type: FieldType
    required: bool
    title: str | None = None
    description: str | None = None
    markers: tuple[Marker, ...] = ()


Fields = Mapping[str, Field]

#: Deeper than a person's documents go; what ends a model that contains itself.
MAX_NESTING = 20

_SCALARS: tuple[tuple[type, Kind], ...] = (
    (bool, Kind.BOOLEAN),
    (int, Kind.INTEGER),
    (float, Kind.NUMBER),
    (Decimal, Kind.DECIMAL),
    (dt.datetime, Kind.DATETIME),
    (ObjectId, Kind.OBJECT_ID),
    (uuid.UUID, Kind.UUID),
    (bytes, Kind.BINARY),
    (str, Kind.STRING),
    (AnyUrl, Kind.STRING),
    (SecretStr, Kind.STRING),
)


def fields_of(model: type[BaseModel], place: str = "") -> dict[str, Field]:
    """Read the declared fields of a pydantic model, keyed by their names in MongoDB.

    Raises DeclarationError, naming the class and field, for a type that has no BSON form here.
    """
    nested = bool(place)
    place = place or model.__name__
    if place.count(".") > MAX_NESTING:
        raise DeclarationError(f"{place}: models are nested deeper than {MAX_NESTING} levels, or in themselves")
    fields: dict[str, Field] = {}
    for attribute, info in model.model_fields.items():
        where = f"{place}.{attribute}"
        if info.exclude:
            if nested:
                raise DeclarationError(f"{where}: a nested model stores all its fields; `exclude` has no place there")
            continue
        stored = info.alias or attribute
        if info.validation_alias not in (None, stored):
            raise DeclarationError(f"{where}: a field has one name; use `alias` and not `validation_alias`")
        markers = tuple(m for m in info.metadata if isinstance(m, Marker))
        if markers and nested:
            raise DeclarationError(f"{where}: field markers belong on the class's own fields, not on nested ones")
        found = _type_of(info.annotation, list(info.metadata), where)
        fields[stored] = Field(
            name=stored,
            public="id" if stored == "_id" else stored,
            # Beanie's `_id` is None only until the document is stored.
            type=replace(found, nullable=False) if stored == "_id" else found,
            required=info.is_required(),
            title=info.title,
            description=info.description,
            markers=markers,
        )
    return fields


def _type_of(annotation: Any, metadata: list[Any], where: str) -> FieldType:
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *extra = get_args(annotation)
        return _type_of(base, metadata + extra, where)
    constraints = _constraints_of(metadata)
    if origin in (Union, types.UnionType):
        return _union_of(get_args(annotation), metadata, where)
    if origin is Literal:
        return _choice_of(tuple(get_args(annotation)), where)
    if origin in (list, tuple, set, frozenset):
        arguments = [a for a in get_args(annotation) if a is not Ellipsis]
        if len(arguments) > 1:
            raise DeclarationError(f"{where}: tuples of mixed types have no readable BSON form; use a nested model")
        item = _type_of(arguments[0], [], f"{where}[]") if arguments else FieldType(Kind.ANY)
        renamed = _of_array(constraints)
        if origin in (set, frozenset):
            renamed["uniqueItems"] = True
        return FieldType(Kind.ARRAY, item=item, constraints=renamed)
    if origin is dict:
        key, value = get_args(annotation)
        if key is not str:
            raise DeclarationError(f"{where}: the keys of a map are strings in BSON")
        return FieldType(Kind.MAP, item=_type_of(value, [], f"{where}.*"), constraints=_of_map(constraints))
    if annotation is Any:
        return FieldType(Kind.ANY)
    if annotation in (list, set, tuple, frozenset):
        return FieldType(Kind.ARRAY, item=FieldType(Kind.ANY), constraints=_of_array(constraints))
    if annotation is dict:
        return FieldType(Kind.MAP, item=FieldType(Kind.ANY), constraints=_of_map(constraints))
    return _named_type_of(annotation, constraints, where)


def _named_type_of(annotation: Any, constraints: dict[str, Any], where: str) -> FieldType:
    if annotation is EmailStr:
        return FieldType(Kind.STRING, constraints=constraints)
    if isinstance(annotation, type):
        if issubclass(annotation, enum.Enum):
            return _choice_of(tuple(member.value for member in annotation), where)
        if issubclass(annotation, RootModel):
            return _type_of(annotation.model_fields["root"].annotation, [], where)
        if issubclass(annotation, BaseModel):
            return FieldType(Kind.OBJECT, fields=_nested(annotation, where))
        for python_type, kind in _SCALARS:
            if issubclass(annotation, python_type):
                return FieldType(kind, constraints=constraints)
    raise DeclarationError(f"{where}: the type {annotation!r} has no BSON form here")


def _nested(model: type[BaseModel], where: str) -> dict[str, Field]:
    fields = fields_of(model, where)
    if any(_holds_bytes(f.type) for f in fields.values()) and model.model_config.get("val_json_bytes") != "base64":
        raise DeclarationError(
            f"{where}: {model.__name__} has bytes, which are base64 in JSON: "
            "give it `model_config = ConfigDict(val_json_bytes='base64')`"
        )
    return fields


def _holds_bytes(type_: FieldType) -> bool:
    inner = (*type_.alternatives, *([type_.item] if type_.item is not None else []))
    return type_.kind is Kind.BINARY or any(map(_holds_bytes, inner))


def _union_of(members: tuple[Any, ...], metadata: list[Any], where: str) -> FieldType:
    nullable = type(None) in members
    real = [m for m in members if m is not type(None)]
    types_ = [_type_of(m, metadata, where) for m in real]
    if len(types_) == 1:
        only = types_[0]
        return FieldType(only.kind, nullable or only.nullable, only.item, only.fields, only.alternatives,
                         only.choices, only.constraints)  # fmt: skip
    return FieldType(Kind.UNION, nullable=nullable, alternatives=tuple(types_))


def _choice_of(values: tuple[Any, ...], where: str) -> FieldType:
    if all(isinstance(v, str) for v in values):
        return FieldType(Kind.STRING, choices=tuple(str(v) for v in values))
    if all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return FieldType(Kind.INTEGER, choices=tuple(int(v) for v in values))
    raise DeclarationError(f"{where}: choices are all strings or all integers, so that they read well in mongosh")


def _constraints_of(metadata: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in metadata:
        if isinstance(entry, FieldInfo):
            found |= _constraints_of(list(entry.metadata))
        elif isinstance(entry, at.GroupedMetadata):  # StringConstraints, Interval, Len
            found |= _constraints_of(list(entry))
        elif isinstance(entry, at.MinLen):
            found["minLength"] = entry.min_length
        elif isinstance(entry, at.MaxLen):
            found["maxLength"] = entry.max_length
        elif isinstance(entry, at.Ge):
            found |= {"minimum": entry.ge, "exclusiveMinimum": False}
        elif isinstance(entry, at.Le):
            found |= {"maximum": entry.le, "exclusiveMaximum": False}
        elif isinstance(entry, at.Gt):
            found |= {"minimum": entry.gt, "exclusiveMinimum": True}
        elif isinstance(entry, at.Lt):
            found |= {"maximum": entry.lt, "exclusiveMaximum": True}
        elif isinstance(entry, at.MultipleOf):
            found["multipleOf"] = entry.multiple_of
        elif isinstance(pattern := getattr(entry, "pattern", None), str):
            found["pattern"] = pattern
        elif isinstance(pattern, re.Pattern) and pattern.flags == re.UNICODE and "$" not in pattern.pattern:
            # pydantic gives it to Python, whose `$` and flags mean something else than JSON Schema's.
            found["pattern"] = pattern.pattern
        else:
            found |= _digits(found, getattr(entry, "max_digits", None), getattr(entry, "decimal_places", None))
    return {name: value for name, value in found.items() if value is not False}


def _digits(known: Mapping[str, Any], most: int | None, places: int | None) -> dict[str, Any]:
    """What a limit of a decimal's digits means for its value."""
    found: dict[str, Any] = {}
    if places is not None:
        found["multipleOf"] = Decimal(1).scaleb(-places)
    if most is not None:
        beyond = Decimal(1).scaleb(most - (places or 0))
        if known.get("maximum", beyond) >= beyond:
            found |= {"maximum": beyond, "exclusiveMaximum": True}
        if known.get("minimum", -beyond) <= -beyond:
            found |= {"minimum": -beyond, "exclusiveMinimum": True}
    return found


def _of_array(constraints: Mapping[str, Any]) -> dict[str, Any]:
    names = {"minLength": "minItems", "maxLength": "maxItems"}
    return {names.get(key, key): value for key, value in constraints.items()}


def _of_map(constraints: Mapping[str, Any]) -> dict[str, Any]:
    names = {"minLength": "minProperties", "maxLength": "maxProperties"}
    return {names.get(key, key): value for key, value in constraints.items()}
