"""Clients' JSON on its way into documents: what is refused, where, and that the rest comes back as it was sent."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from documents import ANONYMOUS, DocumentRefused, Fault, public_value
from documents.input import MAX_DEPTH, merge
from tests.documents.classes import ADMIN, ANN, World


async def refusal(world: World, body: Any, name: str = "specimens") -> tuple[Fault, ...]:
    with pytest.raises(DocumentRefused) as caught:
        await world.store.create(world.registry[name], ANN, body)
    return caught.value.faults


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("body", [None, 1, "text", [], [{}], True])
async def test_a_body_that_is_no_object_is_refused(memory: World, body: Any) -> None:
    """Only a JSON object can be a document."""
    assert await refusal(memory, body) == (Fault(("body",), "a JSON object is expected", "object_type"),)


HOSTILE: dict[str, tuple[dict[str, Any], tuple[str | int, ...], str]] = {
    "an unknown field": ({"nope": 1}, ("nope",), "extra_forbidden"),
    "the id": ({"id": "x"}, ("id",), "read_only"),
    "the stored name of the id": ({"_id": "x"}, ("_id",), "extra_forbidden"),
    "an attribute's name where the alias counts": ({"renamed": "x"}, ("renamed",), "extra_forbidden"),
    "the revision": ({"revision": 9}, ("revision",), "read_only"),
    "the time of creation": ({"created_at": "2026-01-01T00:00:00Z"}, ("created_at",), "read_only"),
    "an operator as a field": ({"$set": {"text": "x"}}, ("$set",), "extra_forbidden"),
    "an unknown nested field": ({"part": {"name": "a", "nope": 1}}, ("part", "nope"), "extra_forbidden"),
    "an unknown field in an array": ({"parts": [{"name": "a"}, {"x": 1}]}, ("parts", 1, "x"), "extra_forbidden"),
    "an unknown field in a map": ({"by_name": {"k": {"x": 1}}}, ("by_name", "k", "x"), "extra_forbidden"),
    "a key with a dot": ({"counts": {"a.b": 1}}, ("counts", "a.b"), "key_name"),
    "a key with a dollar": ({"anything": [{"$where": 1}]}, ("anything", 0, "$where"), "key_name"),
    "a key with a null": ({"anything": {"a\0": 1}}, ("anything", "a\0"), "key_name"),
    "half a surrogate pair": ({"text": "a\ud800"}, ("text",), "string_unicode"),
    "half a surrogate pair in a key": ({"counts": {"\udfff": 1}}, ("counts",), "string_unicode"),
    "a great integer": ({"whole": 2**53}, ("whole",), "int_range"),
    "a small integer": ({"anything": {"n": [-(2**53)]}}, ("anything", "n", 0), "int_range"),
    "an integer that fills pages": ({"anything": 10**5000}, ("anything",), "int_range"),
    "a depth": ({"anything": nested(MAX_DEPTH + 1)}, ("anything", *[0] * MAX_DEPTH), "too_deep"),
    "infinity": ({"number": float("inf")}, ("number",), "finite_number"),
    "NaN below anything": ({"anything": [float("nan")]}, ("anything", 0), "finite_number"),
    "text for an integer": ({"whole": "1"}, ("whole",), "int_type"),
    "a fraction for an integer": ({"whole": 1.5}, ("whole",), "int_type"),
    "true for an integer": ({"whole": True}, ("whole",), "int_type"),
    "one for true": ({"flag": 1}, ("flag",), "bool_type"),
    "text for a number": ({"number": "1.0"}, ("number",), "float_type"),
    "a number for text": ({"text": 1}, ("text",), "string_type"),
    "null for text": ({"text": None}, ("text",), "string_type"),
    "null for a list": ({"words": None}, ("words",), "list_type"),
    "null in a list": ({"words": ["a", None]}, ("words", 1), "string_type"),
    "an object for a list": ({"words": {}}, ("words",), "list_type"),
    "a list for an object": ({"part": []}, ("part",), "model_type"),
    "a time without an offset": ({"at": "2026-01-01T00:00:00"}, ("at",), "datetime"),
    "a day": ({"at": "2026-01-01"}, ("at",), "datetime"),
    "a number for a time": ({"at": 0}, ("at",), "datetime_type"),
    "a month that is not": ({"at": "2026-13-01T00:00:00Z"}, ("at",), "datetime_parsing"),
    "the first year, east of Greenwich": ({"at": "0001-01-01T00:00:00+10:00"}, ("at",), "datetime"),
    "the last year, west of Greenwich": ({"at": "9999-12-31T23:59:59-10:00"}, ("at",), "datetime"),
    "a nested time out of range": (
        {"part": {"name": "a", "made": "9999-12-31T23:59:59-10:00"}}, ("part", "made"), "datetime",
    ),
    "a time before its bound": ({"recent": "1989-01-01T00:00:00Z"}, ("recent",), "greater_than_equal"),
    "a decimal of 35 digits": ({"money": "1" * 35}, ("money",), "decimal"),
    "a decimal of 35 digits in a union": ({"exact": "1" * 35}, ("exact",), "unstorable"),
    "a decimal beyond its exponents": ({"money": "1e7000"}, ("money",), "decimal"),
    "a decimal NaN": ({"money": "NaN"}, ("money",), "finite_number"),
    "a decimal infinity": ({"money": "-Infinity"}, ("money",), "finite_number"),
    "text for a decimal": ({"money": "ten"}, ("money",), "decimal"),
    "a nested decimal": ({"parts": [{"name": "a", "weight": "1" * 35}]}, ("parts", 0, "weight"), "decimal"),
    "true for a decimal": ({"money": True}, ("money",), "decimal_type"),
    "an unknown choice": ({"colour": "green"}, ("colour",), "enum"),
    "text for a numeric choice": ({"level": "1"}, ("level",), "enum"),
    "a short id": ({"other_id": "abc"}, ("other_id",), "string_too_short"),
    "no UUID": ({"key": "abc"}, ("key",), "uuid_parsing"),
    "no base64": ({"data": "a*b"}, ("data",), "bytes_invalid_encoding"),
    "text that is too long": ({"text": "x" * 41}, ("text",), "string_too_long"),
    "text against its pattern": ({"code": "A"}, ("code",), "string_pattern_mismatch"),
    "a decimal above its bound": ({"share": "1.01"}, ("share",), "less_than_equal"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_hostile_value_is_refused_in_its_place(memory: World, case: str) -> None:
    """Each fault is one fault, with its place below the body and a stable word."""
    body, loc, type_ = HOSTILE[case]
    faults = await refusal(memory, {"must": 1} | body)
    assert [(f.loc, f.type) for f in faults] == [(("body", *loc), type_)]
    assert await memory.database.raw["specimens"].count_documents({}) == 0


async def test_all_faults_are_named_at_once(memory: World) -> None:
    """A client that sends three faults learns of three."""
    faults = await refusal(memory, {"text": 1, "whole": "x", "flag": 2})
    assert {f.loc for f in faults} == {("body", "text"), ("body", "whole"), ("body", "flag"), ("body", "must")}


async def test_a_hidden_field_is_refused_like_an_unknown_one(memory: World) -> None:
    """Nothing in the answer tells a hidden field from one that does not exist."""
    faults = await refusal(memory, {"title": "a", "hush": "x", "absent": "x"}, "notes")
    hidden, unknown = faults
    assert (hidden.loc, unknown.loc) == (("body", "hush"), ("body", "absent"))
    assert (hidden.msg, hidden.type) == (unknown.msg, unknown.type)


async def test_a_field_for_admins_is_unknown_to_others(memory: World) -> None:
    """`VisibleTo` fields can be set by who sees them, and exist for nobody else."""
    faults = await refusal(memory, {"title": "a", "cost": 3}, "notes")
    assert [(f.loc, f.type) for f in faults] == [(("body", "cost"), "extra_forbidden")]
    found = await memory.store.create(memory.registry["notes"], ADMIN, {"title": "a", "cost": 3})
    assert found.document["cost"] == 3


@pytest.mark.parametrize("field", ["checked", "owner_id"])
async def test_what_the_server_sets_is_read_only(memory: World, field: str) -> None:
    """`ReadOnly` and `SetOnCreate` fields are named as what they are."""
    faults = await refusal(memory, {"title": "a", field: None}, "notes")
    assert [(f.loc, f.type) for f in faults] == [(("body", field), "read_only")]


async def test_the_creating_user_is_set(memory: World) -> None:
    """`SetOnCreate(current_user)` takes the principal, and nobody for an anonymous one."""
    notes = memory.registry["notes"]
    owned = await memory.store.create(notes, ANN, {"title": "a"})
    assert owned.document["owner_id"] == str(ANN.user_id)
    assert "owner_id" not in (await memory.store.create(notes, ANONYMOUS, {"title": "b"})).document


async def test_validators_of_the_class_have_a_place(memory: World) -> None:
    """A field's validator is located at its field, a model's at the body."""
    (shouting,) = await refusal(memory, {"title": "LOUD"}, "notes")
    assert shouting.loc == ("body", "title")
    assert "do not shout" in shouting.msg
    (whole,) = await refusal(memory, {"title": "a", "slug": "zero", "score": 1}, "notes")
    assert whole.loc == ("body",)


async def test_a_validator_that_breaks_writes_nothing(memory: World) -> None:
    """An exception that is not the client's fault passes through, and no document is written."""
    with pytest.raises(KeyError):
        await memory.store.create(memory.registry["notes"], ANN, {"title": "broken"})
    assert await memory.database.raw["notes"].count_documents({}) == 0


async def test_times_are_cut_to_the_millisecond(contract: World) -> None:
    """What a write answers is what a later read gives."""
    specimens = contract.registry["specimens"]
    body = {"must": 1, "at": "2026-01-31T12:00:00.9999999+02:00", "part": {"name": "a", "made": "2026-01-31t12:00:00z"}}
    created = await contract.store.create(specimens, ANN, body)
    assert created.document["at"] == "2026-01-31T10:00:00.999Z"
    assert created.document["part"]["made"] == "2026-01-31T12:00:00.000Z"
    read = await contract.store.get(specimens, created.document["id"], ANN)
    assert read.document == created.document
    assert read.etag == created.etag


EVERYTHING: dict[str, Any] = {
    "text": "Grüße 🌊",
    "code": "abc",
    "word": "Jürgen",
    "whole": 2**53 - 1,
    "number": 1e300,
    "money": "12.50",
    "share": "0.5",
    "flag": True,
    "at": "2026-01-31T12:00:00.123Z",
    "recent": "2001-01-01T00:00:00.000Z",
    "other_id": "6b02c1e9c1e9111478612819",
    "key": "0b1f7e4e-5a0b-4a5c-9f5e-0c6a7d8e9f00",
    "data": "aGVs+G8/",
    "colour": "blue",
    "level": 2,
    "words": ["b", "a", "b"],
    "labels": ["x", "y", "z"],
    "levels": [1, 2, 10],
    "pair": [2, 1],
    "part": {"name": "p", "weight": "1.0", "made": "2026-01-01T00:00:00.000Z", "seal": "AAE="},
    "parts": [{"name": "q", "weight": "0", "made": None, "seal": ""}],
    "counts": {"a": 1, "": 2},
    "by_name": {"k": {"name": "r", "weight": "3", "made": None, "seal": ""}},
    "shape": {"width": 1.0, "height": 2.0},
    "either": "three",
    "exact": "1.5",
    "address": "https://example.org/a",
    "anything": {"deep": [1, None, {"x": "2026-01-01T00:00:00Z"}]},
    "must": None,
    "usual": None,
    "otherName": "other",
    "made": 7,
}


async def test_every_type_comes_back_as_it_was_sent(contract: World) -> None:
    """create → get → replace with what was got → get: the content and its entity tag stay the same."""
    specimens = contract.registry["specimens"]
    created = await contract.store.create(specimens, ANN, EVERYTHING)
    assert {key: created.document[key] for key in EVERYTHING} == EVERYTHING
    read = await contract.store.get(specimens, created.document["id"], ANN)
    assert read.document == created.document
    body = {key: read.document[key] for key in EVERYTHING}
    replaced, was_created = await contract.store.replace(specimens, read.document["id"], ANN, body)
    assert (was_created, replaced.etag) == (False, read.etag)
    again = await contract.store.get(specimens, read.document["id"], ANN)
    assert {key: again.document[key] for key in EVERYTHING} == EVERYTHING
    assert again.document["revision"] == 1  # nothing has changed


async def test_absent_fields_get_their_defaults(memory: World) -> None:
    """Fields that are None by default stay away; a default that reads other fields is made by the class."""
    created = await memory.store.create(memory.registry["specimens"], ANN, {"must": 4})
    assert (created.document["usual"], created.document["made"]) == (5, 5)
    assert not {"at", "part", "shape", "anything"} & set(created.document)


async def test_sets_are_stored_in_one_order(memory: World) -> None:
    """The order does not depend on how Python happens to keep a set."""
    body = {"must": 1, "labels": ["pear", "apple", "fig"], "levels": [10, 9, 1]}
    created = await memory.store.create(memory.registry["specimens"], ANN, body)
    assert (created.document["labels"], created.document["levels"]) == (["apple", "fig", "pear"], [1, 9, 10])


MERGES: list[tuple[Any, Any, Any]] = [  # RFC 7396, appendix A
    ({"a": "b"}, {"a": "c"}, {"a": "c"}), ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}), ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}), ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}), ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}), (["a", "b"], ["c", "d"], ["c", "d"]), ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None), ({"a": "foo"}, "bar", "bar"), ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}), ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]  # fmt: skip


@pytest.mark.parametrize(("target", "patch", "result"), MERGES)
def test_merging_is_as_the_standard_has_it(target: Any, patch: Any, result: Any) -> None:
    """The examples of RFC 7396, and neither argument is changed."""
    before = repr((target, patch))
    assert merge(target, patch) == result
    assert repr((target, patch)) == before


def test_a_naive_time_is_taken_as_utc() -> None:
    """BSON times have no offset."""
    assert public_value(dt.datetime(2026, 1, 1)) == "2026-01-01T00:00:00.000Z"  # noqa: DTZ001 - naive on purpose
