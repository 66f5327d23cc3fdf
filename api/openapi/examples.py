"""Examples for what has none of its own, made from the schemas: every operation shows what it takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from documents import INVALID

_ID = "65f2a7c09b3e4a0d1c2f8b11"
#: By format, and by a field's name.
_TEXTS = {"date-time": "2026-01-31T12:00:00.000Z", "email": "mara@example.org", "date": "2026-01-31"}
_NAMED = {"username": "mara", "password": "river-stone-42", "new_password": "river-stone-43"}
_NUMBERS = {"integer": 1, "number": 1.5}
_MAX_DEPTH = 6

Schema = Mapping[str, Any]


def add_examples(document: dict[str, Any]) -> None:
    """Give an example to each body, successful answer and path parameter of `document` that has none.

    Optional query parameters keep what they declare: Swagger UI fills in every example that there is, and not all
    parameters go together.
    """
    schemas: Schema = document["components"]["schemas"]
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and "example" not in parameter:
                    is_id = parameter["name"] == "id"
                    parameter["example"] = _ID if is_id else _example(parameter["schema"], schemas, parameter["name"])
            bodies = [operation.get("requestBody", {}), *_successes(operation)]
            for content in (content for body in bodies for content in body.get("content", {}).values()):
                if not _has_example(content, schemas):
                    content["example"] = _example(content["schema"], schemas)


def _successes(operation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [answer for status, answer in operation["responses"].items() if str(status).startswith("2")]


def _has_example(content: Schema, schemas: Schema) -> bool:
    return "example" in content or "examples" in content or "examples" in _resolved(content["schema"], schemas)


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    reference = schema.get("$ref")
    resolved: Schema = schemas[reference.rpartition("/")[2]] if reference else schema
    return resolved


def _example(schema: Schema, schemas: Schema, name: str = "", depth: int = 0) -> Any:
    """A plausible value of `schema`. `name` is the field's, which tells ids."""
    label = str(schema.get("$ref", "")).rpartition("/")[2]
    schema = _resolved(schema, schemas)
    if schema.get("examples"):
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        known = [choice for choice in choices if choice.get("type") != "null"]
        return _example(known[0], schemas, name, depth) if known else None
    match schema.get("type"):
        case "object" if depth < _MAX_DEPTH:
            return _object(schema, schemas, label, depth)
        case "array" if depth < _MAX_DEPTH:
            return [_example(schema.get("items", {}), schemas, name, depth + 1)]
        case "boolean":
            return bool(schema.get("default", True))
        case ("integer" | "number") as kind:
            return schema.get("minimum", schema.get("default", _NUMBERS[kind]))
        case "string":
            if name == "id" or name.endswith("_id") or "24" in schema.get("pattern", ""):
                return _ID
            return _NAMED.get(name) or _TEXTS.get(schema.get("format", "")) or schema.get("default") or "text"
        case _:
            return None


def _object(schema: Schema, schemas: Schema, label: str, depth: int) -> dict[str, Any]:
    value = {
        name: _example(field, schemas, name, depth + 1)
        for name, field in schema.get("properties", {}).items()
        if name != INVALID
        and (name in schema.get("required", ()) or field.get("default", "") is not None or label.endswith(_WHOLE))
    }
    # A document that is answered is one that might have been created from its class's own example.
    for whole in _WHOLE:
        form = schemas.get(f"{label.removesuffix(whole)}Create", {}) if label.endswith(whole) else {}
        for example in form.get("examples", ())[:1]:
            value |= {name: given for name, given in example.items() if name in schema["properties"]}
    return value


#: Endings of the names of schemas that are documents as they are answered.
_WHOLE = ("Public", "Item")
