"""Rules judged in this process: they agree with the database's own judgement of its validator."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from documents import ResourceClass, json_schema
from documents.validity import Validity
from tests.documents.classes import Specimen, World

SPECIMENS = Validity(json_schema(ResourceClass(Specimen)))
WHOLE: dict[str, Any] = {"must": 1}

#: Values near the borders of the rules, which random ones would seldom meet.
NEAR = st.sampled_from(
    [
        "", "a", "A1", "x" * 40, "x" * 41, "\U0001f600" * 40, "red", "green", "a\n", 0, 1, 2, 3, -1, 1.0, 1.5, 2**31,
        2**53, 2**53 - 1, Int64(1), True, None, Decimal128("1"), Decimal128("0.5"), float("nan"), float("inf"), [],
        ["a"], ["a", "a"], [1, 1.0], ["a", 1], [{"name": "a"}], [{"name": ""}], {}, {"name": "a"},
        {"name": "a", "x": 1},
        {"radius": 1.0}, {"width": 1.0, "height": 2.0}, {"a": 1}, {"a": "x"}, {"a": {"name": "b"}}, ObjectId(),
        uuid.uuid4(), b"", Binary(b"x", 5), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), Regex("a"), Timestamp(1, 1),
        MinKey(), MaxKey(),
        "user:" + "0" * 24, "user:" + "0" * 23, "system", "systems", {"name": "a", "weight": Decimal128("1")},
    ]
)  # fmt: skip
#: The embedded server ignores bounds on decimals, which `share` has; see `test_bounds_of_decimals`.
FIELDS = [name for name in ResourceClass(Specimen).fields if name not in ("_id", "share")]
VALUES = st.one_of(
    NEAR,
    st.lists(NEAR, max_size=3),
    st.dictionaries(st.sampled_from(["a", "name", "weight", "made"]), NEAR, max_size=2),
)
DOCUMENTS = st.lists(
    st.dictionaries(st.sampled_from([*FIELDS, "undeclared"]), VALUES, min_size=1, max_size=2),
    min_size=40,
    max_size=40,
)


@pytest.mark.property
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(documents=DOCUMENTS)
async def test_the_database_judges_alike(world: World, documents: list[dict[str, Any]]) -> None:
    """Of random documents, exactly those that its `$jsonSchema` does not match have faults here."""
    collection = world.database.raw["specimens"]
    await collection.delete_many({})
    stored = [{"_id": ObjectId(), **WHOLE, **document} for document in documents]
    await collection.insert_many(stored, bypass_document_validation=True)
    rules = {"$jsonSchema": json_schema(world.registry["specimens"])}
    kept = {document["_id"] async for document in collection.find(rules, {"_id": 1})}
    for document in [document async for document in collection.find()]:
        faults = SPECIMENS.faults(document)
        assert (document["_id"] in kept) is (faults == []), (document, faults)


@pytest.mark.parametrize(
    ("value", "holds"), [("0.5", True), ("1", True), ("1.01", False), ("-1", False), ("NaN", False)]
)
def test_bounds_of_decimals(value: str, holds: bool) -> None:
    """They are compared as numbers, and what is no number is within no bounds."""
    assert (SPECIMENS.faults({**WHOLE, "share": Decimal128(value)}) == []) is holds


def test_no_number_within_the_bounds_of_a_decimal() -> None:
    """NaN is refused, whatever type it has."""
    rules = Validity({"properties": {"x": {"minimum": Decimal128("0.5")}}})
    assert [rules.faults({"x": value}) for value in (float("nan"), Decimal128("sNaN"), 1)] == [["x"], ["x"], []]


def test_faults_are_named() -> None:
    """In the order of the document, undeclared ones too; what is missing comes last."""
    assert SPECIMENS.faults({"_id": ObjectId(), "nope": 1, "text": 5, "whole": 1}) == ["nope", "text", "must"]


@pytest.mark.parametrize("schema", [{"minProperties": 1}, {"properties": {"a": {"oneOf": []}}}, {"bsonType": "array"}])
def test_rule_that_cannot_be_judged(schema: dict[str, Any]) -> None:
    """It is refused at start, and not passed over."""
    with pytest.raises(ValueError, match="cannot be judged"):
        Validity(schema)


def test_pattern_that_ends_the_text() -> None:
    """PCRE's end of the text is the end here, and an escaped backslash before a `z` is none."""
    for pattern, text, holds in (("^a\\z", "a", True), ("^a\\z", "a\n", False), ("^a\\\\z", "a\\z", True)):
        assert (Validity({"properties": {"x": {"pattern": pattern}}}).faults({"x": text}) == []) is holds
