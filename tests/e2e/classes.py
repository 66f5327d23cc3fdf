"""A class whose form and table have every kind of field."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from beanie import PydanticObjectId
from pydantic import BaseModel, Field, model_validator

from documents import Access, Action, ActionForm, LiveDocument, References, Resource, signed_in


class Colour(enum.StrEnum):
    """One of them is an empty text."""

    RED = "red"
    GREEN = "green"
    NONE = ""


class Place(BaseModel):
    """Where it stands."""

    street: Annotated[str, Field(min_length=1)]
    number: int | None = None

    @model_validator(mode="after")
    def not_unlucky(self) -> Self:
        """A rule of the whole, and of none of its fields."""
        if self.number == 13:
            raise ValueError("there is no such house")
        return self


class Kind(LiveDocument):
    """One of each. Nobody needs `it`."""

    label: str = ""
    weight: float | None = None
    tame: bool | None = None
    colour: Colour = Colour.RED
    level: Literal[1, 10] = 1
    numbers: list[int] = Field(default_factory=list)
    prices: list[Decimal] = Field(default_factory=list)
    short: list[Annotated[str, Field(min_length=2)]] = Field(default_factory=list)
    times: list[datetime] = Field(default_factory=list)
    until: datetime | None = None
    home: Place | None = None
    den: Place = Place(street="Main")
    words: dict[str, str] = Field(default_factory=dict)
    uid: UUID | None = None
    blob: bytes | None = None
    friend_ids: Annotated[list[PydanticObjectId], References("kinds")] = Field(default_factory=list)

    class Settings:
        """Where they are kept."""

        name = "kinds"

    resource = Resource(access=Access(read=signed_in, create=signed_in, update=signed_in, delete=signed_in))


class Ending(ActionForm):
    """How it ends."""

    reason: str = ""


def _end(stored: Mapping[str, Any], form: Ending) -> dict[str, Any]:
    return {"title": f"{stored['title']} ended: {form.reason}"}


class Deed(LiveDocument):
    """Nobody changes one who has not seen its present form."""

    title: str = ""
    note: str = ""

    class Settings:
        """Where they are kept."""

        name = "deeds"

    resource = Resource(
        access=Access(read=signed_in, create=signed_in, update=signed_in, delete=signed_in),
        actions=(Action("end", Ending, signed_in, _end, "End it."),),
        conditional=True,
    )
