"""The document classes that the checker writes and watches."""

from __future__ import annotations

from typing import Annotated, Literal

from beanie import PydanticObjectId
from pydantic import Field

from documents import (
    Access,
    LiveDocument,
    References,
    Resource,
    SetOnCreate,
    VisibleTo,
    current_user,
    owner,
    role,
    signed_in,
    where,
)

_read = where({"status": "open"}) | owner("owner_id") | role("moderator", "admin")


class Reading(LiveDocument):
    """What views filter by, in a few values so that documents often enter and leave."""

    group: str
    value: int = 0
    note: str = ""
    tags: list[str] = []  # noqa: RUF012 - pydantic copies defaults
    status: Literal["open", "closed"] = "open"
    owner_id: Annotated[PydanticObjectId | None, References("users"), SetOnCreate(current_user)] = None
    grade: Annotated[int, VisibleTo("moderator", "admin"), Field(description="For moderators only.")] = 0

    class Settings:
        name = "readings"

    resource = Resource(access=Access(read=_read, create=signed_in, update=signed_in, delete=signed_in))


class Scratch(LiveDocument):
    """A class whose collection is dropped now and then."""

    group: str
    value: int = 0

    class Settings:
        name = "scratches"

    resource = Resource(
        access=Access(read=where({"value": {"$gte": 0}}), create=signed_in, update=signed_in, delete=signed_in)
    )
