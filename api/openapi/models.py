"""Models that exist for the document alone: pages and their items."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from documents import Forms, ResourceClass, references_of


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
