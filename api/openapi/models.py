"""Models that exist for the document alone: pages and their items."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, create_model

from documents import Forms, ResourceClass, references_of


class JsonPatchOperation(BaseModel):
    """One operation of a JSON Patch (RFC 6902, section 4)."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: Annotated[str, Field(description="A JSON Pointer (RFC 6901).")]
    source: Annotated[str, Field(alias="from", default="", description="For `move` and `copy`: where the value is.")]
    value: Annotated[Any, Field(default=None, description="For `add`, `replace` and `test`.")]


class JsonPatchBody(RootModel[list[JsonPatchOperation]]):
    """Operations, applied in order, or not at all."""

    model_config = ConfigDict(json_schema_extra={"examples": [[{"op": "test", "path": "/revision", "value": 7}]]})


_Paths = dict[str, Any]
_Numbers = dict[str, int | float | str]


class UpdateOperators(BaseModel):
    """MongoDB's update operators, each with dotted paths."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    set_: Annotated[_Paths, Field(alias="$set", default_factory=dict, description="Set to a value.")]
    unset: Annotated[_Paths, Field(alias="$unset", default_factory=dict, description="Remove; the operand is ignored.")]
    inc: Annotated[_Numbers, Field(alias="$inc", default_factory=dict, description="Add a number.")]
    mul: Annotated[_Numbers, Field(alias="$mul", default_factory=dict, description="Multiply by a number.")]
    min: Annotated[_Paths, Field(alias="$min", default_factory=dict, description="Set if less than what is there.")]
    max: Annotated[_Paths, Field(alias="$max", default_factory=dict, description="Set if greater than what is there.")]
    push: Annotated[
        _Paths,
        Field(alias="$push", default_factory=dict, description="Append; or `{$each, $position, $slice}`."),
    ]
    add_to_set: Annotated[
        _Paths, Field(alias="$addToSet", default_factory=dict, description="Append what is not there; or `{$each}`.")
    ]
    pull: Annotated[
        _Paths, Field(alias="$pull", default_factory=dict, description="Remove elements: a value or a condition.")
    ]


#: Bodies that are the same for all classes.
PATCH_MODELS: list[type[BaseModel]] = [JsonPatchBody, UpdateOperators]


def page_model(resource: ResourceClass, forms: Forms) -> type[BaseModel]:
    """The model of a page of documents."""
    item: Any = _item_model(resource, forms)
    return create_model(
        f"{resource.label}Page",
        __config__=ConfigDict(extra="forbid"),
        __doc__=f"A page of {resource.name}.",
        items=(list[item], Field(description="The documents, in order.")),
        has_next=(bool, Field(description="Whether more follow.")),
        next_cursor=(str | None, Field(None, description="Give it as `cursor` to get the next page.")),
        total=(int | None, Field(None, description="How many match, when counted.")),
        page=(int | None, None),
        page_size=(int | None, None),
        total_pages=(int | None, None),
    )


def _item_model(resource: ResourceClass, forms: Forms) -> type[BaseModel]:
    """The public form as it stands in a list, where `fields` may have selected some of it."""

    def only_the_id_is_always_there(schema: dict[str, Any]) -> None:
        schema["required"] = ["id"]
        schema.pop("examples", None)

    fields: dict[str, Any] = {}
    if references := references_of(resource):
        what = f"With `expand`: the documents that {', '.join(references)} refer to, null where there is none to read."
        fields["expanded"] = (dict[str, Any] | None, Field(None, description=what))
    return create_model(
        f"{resource.label}Item",
        __base__=forms.public,
        __doc__=f"One of {resource.name}, or the fields of it that `fields` selects.",
        __cls_kwargs__={"json_schema_extra": only_the_id_is_always_there},
        **fields,
    )
