"""`$jsonSchema` validators: the rules of a class in the form in which the database itself enforces them.

A person who writes in mongosh meets the same rules as an API client, with a title and a description of each field in
the refusal. https://www.mongodb.com/docs/manual/reference/operator/query/jsonSchema/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from bson import Decimal128

from documents.input import MAX_INTEGER
from documents.markers import References
from documents.resources import ResourceClass
from documents.shapes import Field, Fields, FieldType, Kind

_BSON_TYPES: dict[Kind, list[str]] = {
    Kind.STRING: ["string"],
    Kind.INTEGER: ["int", "long"],
    Kind.NUMBER: ["double", "int", "long"],
    Kind.DECIMAL: ["decimal"],
    Kind.BOOLEAN: ["bool"],
    Kind.DATETIME: ["date"],
    Kind.OBJECT_ID: ["objectId"],
    Kind.UUID: ["binData"],
    Kind.BINARY: ["binData"],
    Kind.OBJECT: ["object"],
    Kind.MAP: ["object"],
    Kind.ARRAY: ["array"],
}

#: What a person writes in mongosh for each kind.
_IN_WORDS: dict[Kind, str] = {
    Kind.STRING: "a text",
    Kind.INTEGER: "an integer",
    Kind.NUMBER: "a number",
    Kind.DECIMAL: "a Decimal128",
    Kind.BOOLEAN: "true or false",
    Kind.DATETIME: "an ISODate",
    Kind.OBJECT_ID: "an ObjectId",
    Kind.UUID: "a UUID",
    Kind.BINARY: "binary data",
    Kind.OBJECT: "a nested document",
    Kind.MAP: "a document with free keys",
    Kind.ARRAY: "an array",
    Kind.ANY: "any value",
}

#: Set by the API on each write and not demanded of an admin who writes by hand.
_NOT_DEMANDED = frozenset({"_id", "created_at", "updated_at", "revision"})


def json_schema(resource: ResourceClass) -> dict[str, Any]:
    """The validator of the resource's collection, as the value of `$jsonSchema`."""
    doc = " ".join(resource.doc.split("\n\n")[0].split())
    return {"title": resource.label, "description": doc or f"A document of {resource.name}."} | _object(resource.fields)


def _object(fields: Fields) -> dict[str, Any]:
    schema: dict[str, Any] = {"bsonType": "object"}
    required = [f.name for f in fields.values() if f.required and f.name not in _NOT_DEMANDED]
    if required:  # MongoDB refuses an empty list
        schema["required"] = required
    schema["properties"] = {f.name: _property(f) for f in fields.values()}
    schema["additionalProperties"] = False
    return schema


def _property(field: Field) -> dict[str, Any]:
    if field.name == "_id":
        return {"title": "id", "description": f"The document's id: {_words(field.type)}."} | _type(field.type)
    title = field.title or field.name.replace("_", " ")
    return {"title": title, "description": field.description or _description(field)} | _type(field.type)


def _description(field: Field) -> str:
    """What can be said of a field that the class does not describe: what goes into it."""
    for marker in field.markers:
        if isinstance(marker, References):
            return f"The _id of a document of {marker.resource}."
    words = _words(field.type)
    return f"{words[0].upper()}{words[1:]}."


def _words(field_type: FieldType) -> str:
    if field_type.kind is Kind.UNION:
        words = ", or ".join(_words(alternative) for alternative in field_type.alternatives)
    elif field_type.choices:
        words = "one of " + ", ".join(map(str, field_type.choices))
    else:
        words = _IN_WORDS[field_type.kind]
        if field_type.item is not None and field_type.item.kind is not Kind.ANY:
            words += f" of which each is {_words(field_type.item)}"
    return f"{words}, or null" if field_type.nullable else words


def _type(field_type: FieldType) -> dict[str, Any]:
    if field_type.kind is Kind.ANY:
        return {}
    if field_type.kind is Kind.UNION:
        alternatives = [_type(alternative) for alternative in field_type.alternatives]
        return {"anyOf": [*alternatives, {"bsonType": "null"}] if field_type.nullable else alternatives}
    names = [*_BSON_TYPES[field_type.kind], *(["null"] if field_type.nullable else [])]
    schema: dict[str, Any] = {"bsonType": names[0] if len(names) == 1 else names}
    if field_type.kind is Kind.OBJECT and field_type.fields is not None:
        schema |= {key: value for key, value in _object(field_type.fields).items() if key != "bsonType"}
    elif field_type.kind is Kind.MAP and field_type.item is not None:
        schema["additionalProperties"] = _type(field_type.item)
    elif field_type.kind is Kind.ARRAY and field_type.item is not None:
        schema["items"] = _type(field_type.item)
    if field_type.choices:
        schema["enum"] = [*field_type.choices, *([None] if field_type.nullable else [])]
    return schema | _limits(field_type)


#: What escapes stand for differs between pydantic (Rust), MongoDB (PCRE) and Python, which judges stored documents.
_ODD_ESCAPE = re.compile(r"\\(?:[wWdDsSbBpPhHvVRXKGQENkguU<>]|x\{)")
_ESCAPE = re.compile(r"\\.", re.DOTALL)
#: A set of characters without another one inside, which only Rust would read as one.
_SET = re.compile(r"\[\^?\]?[^\[\]]*\]")
_SET_OPERATION = re.compile("&&|--|~~")
#: Groups such as `(?i)`, repetitions of repetitions, and what is left of sets in sets.
_ODD_SYNTAX = re.compile(r"\(\?|[*+?}][*+{]|\{,|\[")
#: A `$` at the end, which is not the second half of an escape.
_ENDS = re.compile(r"(?<!\\)((?:\\\\)*)\$\Z")


def _limits(field_type: FieldType) -> dict[str, Any]:
    """The constraints that mean the same to MongoDB as to the class. The others hold in the API alone: a validator
    may be wider than the class, never narrower, or it would refuse what the API accepted."""
    limits = dict(field_type.constraints)
    if field_type.kind is Kind.BINARY:  # lengths are those of texts only
        return {}
    if field_type.kind is Kind.NUMBER:
        # pydantic lets a double miss the multiple by a billionth, MongoDB does not.
        limits.pop("multipleOf", None)
    for bound, flag in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"), ("multipleOf", "")):
        if bound not in limits:
            continue
        number = _number(limits[bound], of_decimal=field_type.kind is Kind.DECIMAL)
        if number is None:  # bounds on times and texts
            del limits[bound]
            limits.pop(flag, None)
        else:
            limits[bound] = number
    if isinstance(step := limits.get("multipleOf"), Decimal128):
        # The embedded server takes no Decimal128 here; MongoDB reads a double in its shortest decimal form.
        limits["multipleOf"] = float(step.to_decimal())
    if pattern := limits.get("pattern"):
        if _reads_differently(pattern):
            del limits["pattern"]
        else:
            # To PCRE, `$` is also the place before a line feed that ends the text.
            limits["pattern"] = _ENDS.sub(r"\1\\z", pattern)
    return limits


def _reads_differently(pattern: str) -> bool:
    if _ODD_ESCAPE.search(pattern):
        return True
    plain = _ESCAPE.sub("x", pattern)
    return bool(_SET_OPERATION.search(plain) or _ODD_SYNTAX.search(_SET.sub("x", plain)))


def _number(value: Any, *, of_decimal: bool) -> int | float | Decimal128 | None:
    if of_decimal and isinstance(value, float):
        # pydantic takes the shortest decimal that is this double; to MongoDB 0.1 and Decimal128("0.1") differ.
        value = Decimal(str(value))
    if isinstance(value, Decimal):
        whole = int(value) if value.is_finite() and value == value.to_integral_value() else None
        return whole if whole is not None and abs(whole) <= MAX_INTEGER else Decimal128(value)
    return value if isinstance(value, int | float) else None


def rules_of(options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The `$jsonSchema` among the options of a collection; None where it has no such validator."""
    rules = options.get("validator", {}).get("$jsonSchema")
    return rules if isinstance(rules, Mapping) else None
