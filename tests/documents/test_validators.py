"""The rules in the database are those of the class: random classes and documents on the real server."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from bson import Decimal128
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from motor.motor_asyncio import AsyncIOMotorDatabase
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, create_model
from pymongo.errors import WriteError

from documents import LiveDocument, ResourceClass, json_schema
from documents.models import Comment, Post, StoredFile, User
from documents.models.accounts import ApiKey, Session
from documents.refusals import faults_of_refusal
from documents.validity import Validity
from tests.documents.class_shapes import Declared, broken_documents, document_classes, documents_of
from tests.documents.classes import CLASSES

_BATCH = 4


def objects_in(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schema and all schemas of objects inside it."""
    if "properties" in schema:
        yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
    inner += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    for part in inner:
        yield from objects_in(part)


def keywords_in(details: Any) -> set[str]:
    """All keywords that a refusal names."""
    if isinstance(details, list):
        return set().union(*map(keywords_in, details))
    if not isinstance(details, dict):
        return set()
    inner = [
        details[name] for name in ("schemaRulesNotSatisfied", "propertiesNotSatisfied", "details") if name in details
    ]
    return {str(details.get("operatorName"))}.union(*map(keywords_in, inner))


@pytest.mark.property
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(declared=document_classes(), data=st.data())
async def test_the_database_accepts_and_refuses_what_the_class_does(
    database: AsyncIOMotorDatabase[dict[str, Any]], declared: Declared, data: st.DataObject
) -> None:
    """What the class accepts is stored; what it refuses is refused with the field and the rule."""
    resource = ResourceClass(declared.document_class)
    await database.drop_collection("shapes")
    await database.create_collection("shapes", validator={"$jsonSchema": json_schema(resource)})
    for document in data.draw(st.lists(documents_of(declared.members), min_size=1, max_size=_BATCH)):
        assert declared.accepts(document)
        await database["shapes"].insert_one(dict(document))
    for refused in data.draw(st.lists(broken_documents(declared.members), min_size=1, max_size=_BATCH)):
        assert not (refused.by_class and declared.accepts(refused.value))
        with pytest.raises(WriteError) as raised:
            await database["shapes"].insert_one(dict(refused.value))
        assert raised.value.code == 121
        details = raised.value.details or {}
        assert refused.keyword in keywords_in(details["errInfo"]["details"])
        assert ("body", *refused.loc) in [fault.loc for fault in faults_of_refusal(details, resource)]
    # The same rules, asked as a question: what `schema check` counts by.
    broken = {"$nor": [{"$jsonSchema": json_schema(resource)}]}
    assert await database["shapes"].count_documents(broken) == 0


@pytest.mark.parametrize("declared", [*CLASSES, Post, Comment, StoredFile, User, Session, ApiKey])
def test_every_field_has_a_title_and_a_description(declared: type[LiveDocument]) -> None:
    """Also those that the class does not describe, and those of nested documents; no other field is allowed."""
    schema = json_schema(ResourceClass(declared))
    assert schema["title"] == declared.__name__
    assert schema["description"]
    for nested in objects_in(schema):
        assert nested["additionalProperties"] is False
        for name, rules in nested["properties"].items():
            assert rules["title"], name
            assert re.fullmatch(r".+\.", rules["description"]), name


class Weight(BaseModel):
    """A nested document."""

    grams: Annotated[Decimal, Field(max_digits=5, decimal_places=2, ge=0)]


class Parcel(LiveDocument):
    """Something
    on its way.

    More of it.
    """

    weight: Weight
    steps: Annotated[float, Field(multiple_of=0.5)] = 0.0
    half: Annotated[Decimal, Field(lt=Decimal("0.5"))] = Decimal(0)
    seal: Annotated[bytes, Field(max_length=5)] = b""
    strict: Annotated[str, StringConstraints(pattern=re.compile("^a$"))] = "a"
    loose: Annotated[str, Field(pattern=re.compile("a", re.IGNORECASE))] = "a"
    plain: Annotated[str, Field(pattern=re.compile("a|b"))] = "a"
    greedy: Annotated[str, Field(pattern="^(a+)+b$")] = "ab"
    doubled: Annotated[str, Field(pattern="a++b")] = "ab"
    marks: Annotated[dict[str, int], Field(min_length=1, max_length=3, default_factory=dict)]

    class Settings:
        name = "parcels"


def test_limits_are_those_that_mean_the_same() -> None:
    """Digits become bounds and steps; what MongoDB would read more narrowly than the class is left to the API."""
    schema = json_schema(ResourceClass(Parcel))
    assert schema["description"] == "Something on its way."
    assert schema["required"] == ["weight"]
    properties = schema["properties"]
    assert properties["weight"]["properties"]["grams"] == {
        "title": "grams", "description": "A Decimal128.", "bsonType": "decimal",
        "minimum": 0, "maximum": 1000, "exclusiveMaximum": True, "multipleOf": 0.01,
    }  # fmt: skip
    assert properties["half"]["maximum"] == Decimal128("0.5")
    assert (properties["marks"]["minProperties"], properties["marks"]["maxProperties"]) == (1, 3)
    assert properties["plain"]["pattern"] == "a|b"
    assert properties["greedy"]["pattern"] == r"^(a+)+b\z"
    assert "multipleOf" not in properties["steps"]
    assert "maxLength" not in properties["seal"]
    for name in ("strict", "loose", "doubled"):
        assert "pattern" not in properties[name]


#: Texts that pydantic takes for the pattern, and whether the rule goes into the database.
PATTERNS: list[tuple[str | re.Pattern[str], str, bool]] = [
    (r"^[a[bc]]$", "c", False),
    (r"^[^[:alpha:]]+$", "1", False),
    (r"^[a-z[:digit:]]+$", "a1", False),
    (r"^a{2}{3}$", "aaaaaa", False),
    (r"^a**$", "aa", False),
    (r"^\x{41}$", "A", False),
    (r"^\U00000041$", "A", False),
    (r"^[a-d&&b-z]$", "c", False),
    (re.compile(r"\Aa{,3}b\Z"), "aab", False),
    (r"^[\[\]*+]+$", "[*+]", True),
    (r"^[]{]+$", "]{", True),
    (r"^\*+$", "**", True),
    (r"^a{2,3}?(b|c)*$", "aabc", True),
    (r"^\x41\t$", "A\t", True),
]


@pytest.mark.parametrize(("pattern", "text", "enforced"), PATTERNS)
def test_pattern_that_others_read_otherwise_is_left_to_the_class(
    pattern: str | re.Pattern[str], text: str, enforced: bool
) -> None:
    """Neither the database nor the judgement of stored documents refuses what the class accepts."""
    declared = create_model("Tagged", __base__=Parcel, tag=(Annotated[str, Field(pattern=pattern)], ...))
    assert TypeAdapter(Annotated[str, Field(pattern=pattern)]).validate_python(text) == text
    schema = json_schema(ResourceClass(declared))
    assert ("pattern" in schema["properties"]["tag"]) is enforced
    assert Validity({"properties": {"tag": schema["properties"]["tag"]}}).faults({"tag": text}) == []


def test_bound_of_decimals_that_is_a_double() -> None:
    """It is the decimal that a person wrote, for the class and the database alike."""
    price = Annotated[Decimal, Field(ge=0.1, lt=0.3)]
    assert TypeAdapter(price).validate_python(Decimal("0.1")) == Decimal("0.1")
    schema = json_schema(ResourceClass(create_model("Priced", __base__=Parcel, price=(price, ...))))
    rules = schema["properties"]["price"]
    assert (rules["minimum"], rules["maximum"]) == (Decimal128("0.1"), Decimal128("0.3"))
    judged = Validity({"properties": {"price": rules}})
    assert [judged.faults({"price": Decimal128(value)}) for value in ("0.1", "0.3")] == [[], ["price"]]


class Strange(Parcel):
    """Bookkeeping without defaults, and bounds that a `$jsonSchema` cannot hold as they are."""

    created_at: dt.datetime
    updated_at: dt.datetime
    revision: int
    size: Literal["small", "large"] | None = None
    sent: Annotated[dt.datetime | None, Field(gt=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))] = None
    stars: Annotated[Decimal, Field(le=Decimal(10) ** 20)] = Decimal(0)


def test_bookkeeping_is_demanded_of_nobody() -> None:
    """Who writes by hand leaves it out, whatever the class says of it."""
    assert json_schema(ResourceClass(Strange))["required"] == ["weight"]


def test_choice_or_null() -> None:
    """Null is one of the choices, or the enumeration would refuse it."""
    rules = json_schema(ResourceClass(Strange))["properties"]["size"]
    assert (rules["bsonType"], rules["enum"]) == (["string", "null"], ["small", "large", None])


def test_bounds_that_are_no_numbers_or_too_great() -> None:
    """MongoDB takes no bound of a time, and an `exclusiveMinimum` only beside a `minimum`; BSON no greater integer."""
    properties = json_schema(ResourceClass(Strange))["properties"]
    assert set(properties["sent"]) == {"title", "description", "bsonType"}
    assert properties["stars"]["maximum"] == Decimal128(str(10**20))
