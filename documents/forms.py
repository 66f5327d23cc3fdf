"""The pydantic models of a class's public forms: `PostCreate`, `PostUpdate`, `PostPublic`.

They are what OpenAPI shows and what a body's types are checked by. The class itself still validates the whole
document, so a form needs no validators of its own.
"""

from __future__ import annotations

import copy
import datetime as dt
from dataclasses import dataclass
from typing import Annotated, Any, Optional

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from documents.markers import Hidden, Marker, VisibleTo
from documents.public import INVALID
from documents.resources import ResourceClass, is_client_writable


@dataclass(frozen=True, slots=True)
class Forms:
    """The three forms of one class. `create` also is the form of a replacement."""

    create: type[BaseModel]
    update: type[BaseModel]
    public: type[BaseModel]


def forms_of(resource: ResourceClass) -> Forms:
    """Build the forms of `resource`."""
    infos = {info.alias or name: info for name, info in resource.document_class.model_fields.items()}
    writable = {name: infos[name] for name, f in resource.fields.items() if is_client_writable(f)}
    served = {
        name: infos[name]
        for name, f in resource.fields.items()
        if name != "_id" and not any(isinstance(marker, Hidden) for marker in f.markers)
    }
    label, examples = resource.label, [dict(example) for example in resource.declared.examples]
    return Forms(
        create=_model(f"{label}Create", writable, f"A new {label}, or all that a replacement sets.", examples),
        update=_model(
            f"{label}Update",
            writable,
            f"Fields of a {label} to change (RFC 7396: null removes a field).",
            [_first_field(example) for example in examples],
            partial=True,
        ),
        public=_public(label, resource.doc, served, resource),
    )


def _first_field(example: dict[str, Any]) -> dict[str, Any]:
    return dict(list(example.items())[:1])


def _plain(info: FieldInfo) -> FieldInfo:
    """A copy of a field's declaration without Headwater's markers and without an alias."""
    plain = copy.copy(info)
    plain.metadata = [m for m in info.metadata if not isinstance(m, Marker)]
    plain.alias = plain.validation_alias = plain.serialization_alias = None
    return plain


def _model(
    name: str, infos: dict[str, FieldInfo], doc: str, examples: list[Any], *, partial: bool = False
) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for field_name, info in infos.items():
        plain = _plain(info)
        annotation: Any = plain.annotation
        if partial:
            if plain.metadata:
                annotation = Annotated[annotation, *plain.metadata]
            annotation = Optional[annotation]  # noqa: UP045 - built at run time
            plain.metadata = []
            plain.default, plain.default_factory = None, None
        elif plain.default_factory is not None:
            # Only the class makes defaults: it knows all fields, and a factory may be costly or read other fields.
            plain.default_factory = _made_by_class
        fields[field_name] = (annotation, plain)
    # Binary is base64 in both directions.
    config = ConfigDict(
        extra="forbid", val_json_bytes="base64", json_schema_extra={"examples": examples} if examples else None
    )
    return create_model(name, __config__=config, __doc__=doc, **fields)


def _made_by_class() -> None:
    """Stands in a form for the class's own default factory; what it gives is never used."""


def _public(label: str, doc: str, infos: dict[str, FieldInfo], resource: ResourceClass) -> type[BaseModel]:
    fields: dict[str, Any] = {"id": (str, Field(description="The document's `_id`."))}
    for field_name, info in infos.items():
        plain = _plain(info)
        annotation: Any = plain.annotation
        # What is stored decides: an older or hand-written document may lack any field, or hold less than the
        # class would now accept. So the public form promises types and not limits.
        plain.metadata = []
        if annotation is dt.datetime:
            annotation = Annotated[dt.datetime, Field(examples=["2026-01-31T12:00:00.000Z"])]
        markers = resource.fields[field_name].markers
        if not resource.fields[field_name].required or any(isinstance(marker, VisibleTo) for marker in markers):
            annotation = Optional[annotation]  # noqa: UP045 - built at run time
            plain.default, plain.default_factory = None, None
        fields[field_name] = (annotation, plain)
    what = "The fields in which the stored document breaks the rules of its class; absent where it keeps them."
    fields[INVALID] = (list[str] | None, Field(None, description=what, json_schema_extra={"readOnly": True}))
    return create_model(f"{label}Public", __config__=ConfigDict(extra="ignore"), __doc__=doc, **fields)
