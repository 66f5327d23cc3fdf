"""Reports: what a class may declare, and what callers' parameters can and cannot do."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from typing import Annotated, Any

import pytest
from beanie import PydanticObjectId
from bson import Decimal128, ObjectId
from pydantic import BaseModel, Field

from documents import ANONYMOUS, Aggregates, DeclarationError, FilterRefused, InvalidInput, Parameter, Report
from documents.aggregates import MAX_ROWS
from tests.documents.classes import ADMIN, ANN, BOB, MODERATOR, World


class Size(enum.StrEnum):
    """A choice."""

    SMALL = "small"
    LARGE = "large"


class Given(BaseModel):
    """Parameters of every kind."""

    text: str = ""
    number: Annotated[int, Field(ge=0)] = 0
    money: Decimal | None = None
    at: dt.datetime | None = None
    one_id: PydanticObjectId | None = None
    size: Size = Size.SMALL
    flag: bool = False
    words: Annotated[list[str], Field(default_factory=list)]


class Nested(BaseModel):
    """A parameter that would be an operator."""

    condition: dict[str, Any]


def report(*stages: dict[str, Any], parameters: type[BaseModel] | None = Given) -> Report:
    return Report(pipeline=stages, description="A report.", parameters=parameters)


MATCH: dict[str, Any] = {"$match": {}}


@pytest.mark.parametrize(
    "stages",
    [
        [{name: {}}]
        for name in (
            *("$lookup", "$unionWith", "$graphLookup", "$out", "$merge", "$geoNear", "$search", "$searchMeta"),
            *(
                "$vectorSearch",
                "$indexStats",
                "$collStats",
                "$currentOp",
                "$changeStream",
                "$documents",
                "$planCacheStats",
            ),
            *("$listSessions", "$listLocalSessions", "$redact", "$changeStreamSplitLargeEvent", "match", "", "$nope"),
        )
    ]
    + [
        [],
        [MATCH | {"$limit": 1}],
        ["$match"],
        [{"$facet": {"a": [{"$lookup": {"from": "users"}}]}}],
        [{"$facet": {"a": [MATCH, {"$out": "stolen"}]}}],
        [{"$facet": {"a": [{"$facet": {}}]}}],
        [{"$facet": []}],
        [{"$facet": {"a": {"$merge": "x"}}}],
        [{"$match": {"$where": "1"}}],
        [{"$match": {"$and": [{"$or": [{"$expr": {"$function": {"body": "", "args": [], "lang": "js"}}}]}]}}],
        [{"$group": {"_id": None, "a": {"$accumulator": {}}}}],
        [{"$facet": {"a": [{"$match": {"$where": "1"}}]}}],
        [{"$project": {"a": {"$cond": [1, {"$function": {}}, 2]}}}],
        [{"$project": {"a": "$$USER_ROLES"}}],
        [{"$project": {"a": {"$_internalFindAllValuesAtPath": "hush"}}}],
        [{"$match": {"$text": {"$search": "a"}}}],
        [{"$match": {"a": {"$near": [0, 0]}}}],
        [{"$match": {"a": Parameter("nope")}}],
        [{"$match": {Parameter("text"): 1}}],
        [{"$match": {"a": {"$regex": Parameter("text")}}}],
        [{"$project": {"a": {"$regexMatch": {"input": "$a", "regex": Parameter("text")}}}}],
    ],
)
def test_pipeline_that_is_refused(stages: list[Any]) -> None:
    """Other collections, writes, code, secrets of the server, and parameters that are no values, at start."""
    with pytest.raises(DeclarationError):
        report(*stages).check("report")


def test_parameters_that_are_refused() -> None:
    """An object would be an operator; a report needs a plain name."""
    with pytest.raises(DeclarationError, match="plain value"):
        report(MATCH, parameters=Nested).check("report")
    for name in ("", "A", "a-b", "a/b", "{id}"):
        with pytest.raises(DeclarationError):
            report(MATCH).check(name)


@pytest.mark.parametrize(
    ("items", "places"),
    [
        ([("nope", "1")], [("query", "nope")]),
        ([("number", "many")], [("query", "number")]),
        ([("number", "-1")], [("query", "number")]),
        ([("number", "9007199254740992")], [("query", "number")]),
        ([("number", "1"), ("number", "2")], [("query", "number")]),
        ([("at", "yesterday")], [("query", "at")]),
        ([("one_id", "x")], [("query", "one_id")]),
        ([("size", "huge")], [("query", "size")]),
        ([("money", "1e99999")], [("query", "money")]),
        ([("flag", "perhaps"), ("nope", "")], [("query", "nope"), ("query", "flag")]),
        ([("text[$ne]", "")], [("query", "text[$ne]")]),
        ([("words", str(n)) for n in range(101)], [("query", "words")]),
    ],
)
def test_arguments_that_are_not_accepted(items: list[tuple[str, str]], places: list[tuple[str, ...]]) -> None:
    """Unknown ones, wrong types and repetitions are faults with their place."""
    with pytest.raises(InvalidInput) as refused:
        report(MATCH).arguments(items)
    assert [fault.loc[:2] for fault in refused.value.faults] == places


def test_arguments_become_bson() -> None:
    """Typed by the declaration, absent ones by their defaults."""
    items = [
        ("money", "1.50"),
        ("at", "2026-01-01T00:00:00Z"),
        ("one_id", "6b02c1e9c1e9111478612819"),
        ("flag", "true"),
    ]
    arguments = report(MATCH).arguments([*items, ("words", "a"), ("words", "$b"), ("size", "large")])
    assert arguments == {
        "text": "",
        "number": 0,
        "money": Decimal128("1.50"),
        "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "one_id": ObjectId("6b02c1e9c1e9111478612819"),
        "size": "large",
        "flag": True,
        "words": ["a", "$b"],
    }


def test_conditions_whose_parameters_were_not_given() -> None:
    """Are left out, with what holds nothing else; what the class wrote stays."""
    declared = report(
        {
            "$match": {
                "at": {"$gte": Parameter("at"), "$lt": 5},
                "other": {"$lte": Parameter("at")},
                "$or": [{"a": Parameter("one_id")}, {"b": {"$in": Parameter("words")}}, {"c": None}],
                "$and": [{"a": Parameter("one_id")}],
                "d": {},
            }
        },
        {"$match": {"at": Parameter("at")}},
    )
    assert declared.stages(declared.arguments([])) == [
        {"$match": {"at": {"$lt": 5}, "$or": [{"b": {"$in": []}}, {"c": None}], "d": {}}},
        {"$match": {}},
    ]


async def notes(world: World) -> None:
    """Two notes of scores 1 and 2, with fields that not everybody sees."""
    if not world.database.in_memory:
        await world.database.raw.command({"collMod": "notes", "validationLevel": "off"})
    for score, text in ((1, "one"), (2, "two")):
        await world.database.raw["notes"].insert_one(
            {"title": text, "score": score, "hush": f"secret {text}", "cost": score * 10, "undeclared": text}
        )


async def rows(world: World, declared: Report, principal: Any, **given: str) -> list[Any]:
    declared.check("report")
    arguments = declared.arguments(list(given.items()))
    found = await Aggregates(world.database).report(world.registry["notes"], declared, arguments, principal)
    return found.items


async def test_fields_that_the_caller_does_not_see(contract: World) -> None:
    """Are not there for the pipeline, however it reaches for them."""
    await notes(contract)
    tell = report({"$sort": {"score": 1}}, {"$project": {"_id": 0, "hush": 1, "cost": 1, "undeclared": 1, "score": 1}})
    assert await rows(contract, tell, ANN) == [{"score": 1}, {"score": 2}]
    assert await rows(contract, tell, ADMIN) == [{"score": 1, "cost": 10}, {"score": 2, "cost": 20}]
    copied = report(
        {"$group": {"_id": "$score", "first": {"$first": "$hush"}, "sum": {"$sum": "$cost"}}}, {"$sort": {"_id": 1}}
    )
    assert [row["sum"] for row in await rows(contract, copied, ANN)] == [0, 0]
    assert "secret" not in str(await rows(contract, copied, ADMIN))
    assert await rows(contract, report({"$match": {"hush": {"$exists": True}}}), ADMIN) == []


async def test_the_whole_document_in_a_pipeline(world: World) -> None:
    """`$$ROOT` is the document as the caller sees it."""
    await notes(world)
    for variable in ("$$ROOT", "$$CURRENT"):
        (row,) = await rows(world, report({"$sort": {"score": 1}}, {"$limit": 1}, {"$project": {"all": variable}}), ANN)
        assert set(row["all"]) == {"_id", "title", "score"}


async def test_rule_of_the_class(contract: World) -> None:
    """A report counts what its caller may read."""
    posts, aggregates = contract.registry["posts"], Aggregates(contract.database)
    for author, status in ((ANN, "draft"), (BOB, "draft"), (BOB, "published")):
        await contract.store.create(posts, author, {"title": "t", "status": status})
    count = report({"$group": {"_id": None, "n": {"$sum": 1}}}, parameters=None)
    for caller, expected in ((ANONYMOUS, 1), (ANN, 2), (BOB, 2), (MODERATOR, 3)):
        found = await aggregates.report(posts, count, {}, caller)
        assert [row["n"] for row in found.items] == [expected]


@pytest.mark.parametrize("text", ["$hush", "$$ROOT", "$title", '{"$gt": ""}', "$$NOW"])
async def test_text_that_looks_like_a_path(world: World, text: str) -> None:
    """Is a text, in expressions and in conditions."""
    await notes(world)
    shown = report({"$limit": 1}, {"$project": {"_id": 0, "text": Parameter("text"), "number": Parameter("number")}})
    assert await rows(world, shown, ANN, text=text, number="0") == [{"text": text, "number": 0}]
    for condition in ({"title": Parameter("text")}, {"$expr": {"$eq": ["$title", Parameter("text")]}}):
        assert await rows(world, report({"$match": condition}), ANN, text=text) == []
    for condition in ({"title": Parameter("text")}, {"$expr": {"$eq": ["$title", Parameter("text")]}}):
        assert len(await rows(world, report({"$match": condition}), ANN, text="one")) == 1


async def test_numbers_where_no_expression_may_stand(world: World) -> None:
    """Limits and directions take the plain number."""
    await notes(world)
    declared = report({"$sort": {"score": -1}}, {"$limit": Parameter("number")}, {"$project": {"_id": 0, "score": 1}})
    assert await rows(world, declared, ANN, number="1") == [{"score": 2}]
    with pytest.raises(InvalidInput, match="cannot be computed"):
        await rows(world, declared, ANN, number="0")


async def test_report_that_the_data_breaks(world: World) -> None:
    """Is the request's fault to the client, with no word of the driver's."""
    await notes(world)
    declared = report({"$project": {"share": {"$divide": ["$score", Parameter("number")]}}})
    with pytest.raises(InvalidInput) as refused:
        await rows(world, declared, ANN, number="0")
    assert [fault.loc for fault in refused.value.faults] == [("query",)]
    assert "divide" not in str(refused.value)


async def test_report_without_an_end(world: World) -> None:
    """It ends at the bound, and says so."""
    await world.database.raw["notes"].insert_one({"title": "a", "hush": "a", "score": 1})
    declared = report(
        {"$project": {"n": {"$range": [0, MAX_ROWS + 5]}}}, {"$unwind": "$n"}, {"$project": {"_id": 0}}, parameters=None
    )
    found = await Aggregates(world.database).report(world.registry["notes"], declared, {}, ANN)
    assert (len(found.items), found.more) == (MAX_ROWS, True)


def test_refused_filter_is_one_of_ours() -> None:
    """Faults of parameters are those of every query string."""
    with pytest.raises(FilterRefused):
        report(MATCH, parameters=None).arguments([("a", "b")])
