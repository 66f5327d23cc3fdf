"""The class behind kanban.html: cards that everybody who is signed in sees, adds and moves."""

from typing import Annotated, Literal

from pydantic import Field

from documents import Access, LiveDocument, Resource, signed_in


class Card(LiveDocument):
    """One card of a board."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    status: Literal["todo", "doing", "done"] = "todo"

    class Settings:
        name = "cards"

    resource = Resource(access=Access(read=signed_in, create=signed_in, update=signed_in, delete=signed_in))
