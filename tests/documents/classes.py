"""Document classes that the tests of `documents/` serve, and the parts that serve them."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from beanie import PydanticObjectId
from bson import ObjectId
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pymongo import IndexModel

from documents import (
    Access,
    Action,
    ActionForm,
    CursorCodec,
    Database,
    Hidden,
    Lists,
    LiveDocument,
    Principal,
    ReadOnly,
    References,
    Registry,
    Resource,
    SetOnCreate,
    Store,
    VisibleTo,
    anyone,
    current_user,
    role,
)

OPEN = Access(read=anyone, create=anyone, update=anyone, delete=anyone)

ANN = Principal(ObjectId(), "ann", frozenset({"user"}))
BOB = Principal(ObjectId(), "bob", frozenset({"user"}))
MODERATOR = Principal(ObjectId(), "mod", frozenset({"user", "moderator"}))
ADMIN = Principal(ObjectId(), "root", frozenset({"user", "admin"}))


class Colour(enum.StrEnum):
    """An enumeration of texts."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """An enumeration of integers."""

    LOW = 1
    HIGH = 2


class Part(BaseModel):
    """A nested document."""

    model_config = ConfigDict(val_json_bytes="base64")

    name: Annotated[str, Field(min_length=1, max_length=20)]
    weight: Decimal = Decimal(0)
    made: dt.datetime | None = None
    seal: bytes = b""


class Circle(BaseModel):
    """One alternative of a union."""

    radius: float


class Box(BaseModel):
    """Another one, with other fields."""

    width: float
    height: float


class Specimen(LiveDocument):
    """A field of every type that a class may have."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=40)] = "text"
    code: Annotated[str, Field(pattern=r"^[a-z]+$")] = "a"
    word: Annotated[str, Field(pattern=r"^\w+$")] = "a"
    whole: Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1)] = 0
    number: float = 0.0
    money: Decimal = Decimal(0)
    share: Annotated[Decimal, Field(ge=Decimal(0), le=Decimal(1))] = Decimal(0)
    flag: bool = False
    at: dt.datetime | None = None
    recent: Annotated[dt.datetime, Field(ge=dt.datetime(1990, 1, 1, tzinfo=dt.UTC))] | None = None
    other_id: PydanticObjectId | None = None
    key: uuid.UUID | None = None
    data: bytes = b""
    colour: Colour = Colour.RED
    level: Level = Level.LOW
    words: Annotated[list[str], Field(default_factory=list)]
    labels: Annotated[set[str], Field(default_factory=set)]
    levels: frozenset[int] = frozenset()
    pair: tuple[int, ...] = ()
    part: Part | None = None
    parts: Annotated[list[Part], Field(default_factory=list)]
    counts: Annotated[dict[str, int], Field(default_factory=dict)]
    by_name: Annotated[dict[str, Part], Field(default_factory=dict)]
    shape: Circle | Box | None = None
    either: int | str | None = None
    exact: int | Decimal = 0
    address: AnyUrl | None = None
    anything: Any = None
    must: Annotated[int | None, Field(description="Required, and may be null.")]
    usual: int | None = 5
    renamed: Annotated[str, Field(alias="otherName")] = ""
    made: Annotated[int, Field(default_factory=lambda data: (data["must"] or 0) + 1)]

    class Settings:
        name = "specimens"

    resource = Resource(access=OPEN, search=("text", "code"))


class Note(LiveDocument):
    """Fields that not everybody sees or sets, and validators of its own."""

    title: Annotated[str, Field(min_length=1)]
    slug: str | None = None
    score: int = 0
    hush: Annotated[str, Hidden()] = "quiet"
    cost: Annotated[int, VisibleTo("admin"), Field(ge=0)] = 0
    checked: Annotated[bool, ReadOnly()] = False
    owner_id: Annotated[PydanticObjectId | None, References("users"), SetOnCreate(current_user)] = None

    class Settings:
        name = "notes"
        indexes = (
            IndexModel([("slug", 1)], name="slug_unique", unique=True, sparse=True),
            IndexModel([("hush", 1), ("title", 1)], name="hush_title_unique", unique=True),
        )

    resource = Resource(access=OPEN, search=("title", "hush"))

    @field_validator("title")
    @classmethod
    def _no_shouting(cls, title: str) -> str:
        if title == "broken":
            raise KeyError("a fault of the class")
        if title.isupper():
            raise ValueError("do not shout")
        return title

    @model_validator(mode="after")
    def _score_of_slug(self) -> Note:
        if self.slug == "zero" and self.score != 0:
            raise ValueError("zero has no score")
        return self


class Amount(ActionForm):
    """By how much."""

    by: Annotated[int, Field(ge=1, le=10)]


def _add(stored: Mapping[str, Any], form: Amount) -> Mapping[str, Any]:
    return {"by_api": stored["by_api"] + form.by}


def _spoil(_: Mapping[str, Any], form: Amount) -> Mapping[str, Any]:
    return {"by_api": "many" * form.by}


ADD = Action("add", Amount, anyone, _add, "Adds.")
CORRECT = Action("correct", Amount, role("moderator"), _add, "Adds, for moderators.")
SPOIL = Action("spoil", Amount, anyone, _spoil, "Makes a document that is not accepted.")


class Counter(LiveDocument):
    """What several writers count in."""

    by_api: int = 0
    by_hand: int = 0

    class Settings:
        name = "counters"

    resource = Resource(access=OPEN, actions=(ADD, CORRECT, SPOIL))


class Keyed(LiveDocument):
    """A document under a text of the client's."""

    id: str  # type: ignore[assignment]  # Beanie lets a class choose the type of its id
    body: str = ""

    class Settings:
        name = "keyed"

    resource = Resource(access=Access(read=anyone, create=anyone, update=anyone, delete=role("admin")))


class Shelf(LiveDocument):
    """References of all kinds."""

    post_ids: Annotated[list[PydanticObjectId], References("posts"), Field(default_factory=list)]
    keyed_id: Annotated[str | None, References("keyed")] = None
    comment_id: Annotated[PydanticObjectId | None, References("comments")] = None
    lost_id: Annotated[PydanticObjectId | None, References("nowhere")] = None
    secret_id: Annotated[PydanticObjectId | None, References("users"), VisibleTo("admin")] = None

    class Settings:
        name = "shelves"

    resource = Resource(access=OPEN)


CLASSES: tuple[type[LiveDocument], ...] = (Specimen, Note, Counter, Keyed, Shelf)


@dataclass(frozen=True)
class World:
    """An open database with everything that serves it."""

    database: Database
    registry: Registry
    store: Store
    lists: Lists

    @classmethod
    def of(cls, database: Database, registry: Registry) -> World:
        """The parts for `database`, which is bound and installed already."""
        store = Store(database, registry)
        return cls(database, registry, store, Lists(database, store, CursorCodec(b"hush")))
