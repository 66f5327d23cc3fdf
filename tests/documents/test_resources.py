"""Classes that cannot be served as declared: each is refused at start, with its place."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Interval, Len
from pydantic import BaseModel, Field, StringConstraints
from pymongo import IndexModel

from documents import DeclarationError, Hidden, LiveDocument, Resource, ResourceClass, VisibleTo
from documents.shapes import Kind, fields_of


class Bytes(BaseModel):
    """Bytes whose JSON would not be base64."""

    data: bytes


class Marked(BaseModel):
    """A marker where none may be."""

    hush: Annotated[str, Hidden()] = ""


class Endless(BaseModel):
    """A model that contains itself."""

    inner: Endless | None = None


class Partly(BaseModel):
    """A field that would be stored and not served."""

    kept: int = Field(default=0, exclude=True)


FIELDS: dict[str, tuple[Any, str]] = {
    "a day, which BSON has not": (dt.date, r"Odd\.field"),
    "a class of no BSON form": (complex, r"Odd\.field"),
    "a tuple of mixed types": (tuple[int, str], r"Odd\.field"),
    "a map whose keys are numbers": (dict[int, str], r"Odd\.field"),
    "choices of mixed types": (Literal["a", 1], r"Odd\.field"),
    "nested bytes that are not base64": (list[Bytes], r"Odd\.field\[\].*val_json_bytes"),
    "a marker on a nested field": (Marked, r"Odd\.field\.hush"),
    "a model within itself": (Endless, "nested deeper"),
    "a nested field that is excluded": (Partly, r"Odd\.field\.kept"),
    "a second name": (Annotated[int, Field(validation_alias="other")], r"Odd\.field"),
    "an unknown role": (Annotated[int, VisibleTo("boss")], "boss"),
}


def made(label: str, collection: Any, **annotations: Any) -> type[LiveDocument]:
    """A class as a `class` statement makes it."""
    settings = type("Settings", (), {"name": collection, "__module__": __name__, "__qualname__": f"{label}.Settings"})
    content = {"__module__": __name__, "__qualname__": label, "__annotations__": annotations, "Settings": settings}
    return type(label, (LiveDocument,), content)


@pytest.mark.parametrize("case", FIELDS)
def test_a_field_that_cannot_be_served(case: str) -> None:
    """The class and field are named."""
    annotation, message = FIELDS[case]
    with pytest.raises(DeclarationError, match=message):
        ResourceClass(made("Odd", "odds", field=annotation))


NAMES = [
    "auth", "ws", "schemas", "admin", "files", "api-keys", "Posts", "1a", "", "system.x", "headwater_x", "a" * 64, 5,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_collection_name_that_cannot_be_served(name: Any) -> None:
    """Names of routes, of MongoDB's and of Headwater's own collections, and names that are not snake_case."""
    with pytest.raises(DeclarationError, match="Named"):
        ResourceClass(made("Named", name))


class Identified(LiveDocument):
    """An id that is a list."""

    id: list[int]  # type: ignore[assignment]  # as a user may write it

    class Settings:
        name = "identified"


def test_settings_that_are_not_right() -> None:
    """A search in an unknown field, an index without a name of its own, an id that no URL can hold."""

    class Searching(LiveDocument):
        """Searches what is not there."""

        class Settings:
            name = "searching"

        resource = Resource(search=("nope",))

    class Indexed(LiveDocument):
        """An index as a plain text."""

        class Settings:
            name = "indexed"
            indexes = ["field"]  # noqa: RUF012 - as a user writes it

    with pytest.raises(DeclarationError, match="nope"):
        ResourceClass(Searching)
    with pytest.raises(DeclarationError, match="IndexModel"):
        _ = ResourceClass(Indexed).indexes
    with pytest.raises(DeclarationError, match=r"Identified\.id"):
        ResourceClass(Identified)


class Shapes(BaseModel):
    """Constraints in all the ways that pydantic has."""

    plain: Annotated[str, Field(min_length=1, max_length=2, pattern="^a")] = ""
    grouped: Annotated[str, StringConstraints(min_length=1, max_length=2, pattern="^a")] = ""
    interval: Annotated[int, Interval(ge=1, lt=5)] = 1
    length: Annotated[list[Annotated[str, Len(1, 3)]], Len(0, 2)] = []
    key: uuid.UUID | None = None
    either: int | list[str] | None = None


def test_constraints_are_read_however_they_are_written() -> None:
    """Groups of constraints mean the same as single ones; the keywords are JSON Schema's."""
    fields = fields_of(Shapes)
    text = {"minLength": 1, "maxLength": 2, "pattern": "^a"}
    assert fields["plain"].type.constraints == fields["grouped"].type.constraints == text
    assert fields["interval"].type.constraints == {"minimum": 1, "maximum": 5, "exclusiveMaximum": True}
    length = fields["length"].type
    assert length.constraints["maxItems"] == 2
    assert length.item is not None
    assert length.item.constraints == {"minLength": 1, "maxLength": 3}
    assert (fields["key"].type.kind, fields["key"].type.nullable) == (Kind.UUID, True)
    assert [a.kind for a in fields["either"].type.alternatives] == [Kind.INTEGER, Kind.ARRAY]


def test_indexes_keep_their_names() -> None:
    """What a class declares is what is created."""

    class Named(LiveDocument):
        """One named index."""

        class Settings:
            name = "named"
            indexes = [IndexModel([("created_at", -1)], name="newest")]  # noqa: RUF012 - as a user writes it

    assert [index.document["name"] for index in ResourceClass(Named).indexes] == ["newest"]
