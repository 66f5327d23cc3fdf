"""Update operators on documents of declared classes: what is refused, and where; types that stay."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId

from documents import DocumentRefused, Fault, PatchKind, Principal, Stored
from tests.documents.classes import ADMIN, ANN, World

GREATEST = 2**53 - 1


async def specimen(world: World, **values: Any) -> str:
    """A new specimen's id; `values` are BSON, written past the API."""
    made = await world.store.create(world.registry["specimens"], ANN, {"must": 1})
    await world.database.raw.specimens.update_one(
        {"_id": ObjectId(made.document["id"])}, {"$set": values or {"must": 1}}
    )
    return str(made.document["id"])


async def update(world: World, name: str, id_text: str, content: Any, caller: Principal = ANN) -> Stored:
    """Apply operators; the document as it is stored then."""
    resource = world.registry[name]
    patch = world.store.prepare(resource, caller, PatchKind.OPERATORS, content)
    await world.store.patch(resource, id_text, caller, patch)
    stored = await world.database.raw[name].find_one({"_id": ObjectId(id_text)})
    assert stored is not None
    return stored


async def refusal(world: World, name: str, id_text: str, content: Any, caller: Principal = ANN) -> list[Fault]:
    """The faults; nothing may have changed."""
    before = await world.database.raw[name].find_one({"_id": ObjectId(id_text)})
    with pytest.raises(DocumentRefused) as refused:
        await update(world, name, id_text, content, caller)
    assert await world.database.raw[name].find_one({"_id": ObjectId(id_text)}) == before
    return list(refused.value.faults)


@pytest.mark.parametrize("operator", ["$set", "$unset", "$inc", "$mul", "$min", "$max", "$push", "$addToSet", "$pull"])
async def test_a_hidden_field_is_one_that_does_not_exist(memory: World, operator: str) -> None:
    """Whatever the operator and what the field holds: the faults differ in nothing but the name that was asked for."""
    notes, raw = memory.registry["notes"], memory.database.raw.notes
    id_text = (await memory.store.create(notes, ANN, {"title": "a"})).document["id"]
    for content in (7, [1], "text"):
        await raw.update_one({"_id": ObjectId(id_text)}, {"$set": {"hush": content}})
        for name in ("hush", "cost", "hush.0", "cost.a.b"):
            [fault] = await refusal(memory, "notes", id_text, {operator: {name: 1}})
            nothing = name.replace("hush", "nope").replace("cost", "nope")
            [other] = await refusal(memory, "notes", id_text, {operator: {nothing: 1}})
            assert (fault.msg, fault.type) == (other.msg, other.type) == ("there is no such field", "extra_forbidden")
            assert fault.loc == ("body", operator, name)
    # To those who see it, it is a field like any other.
    assert (await update(memory, "notes", id_text, {"$inc": {"cost": 2}}, ADMIN))["cost"] == 2


@pytest.mark.parametrize("name", ["id", "revision", "created_at", "updated_at", "owner_id", "checked", "owner_id.a"])
@pytest.mark.parametrize("operator", ["$set", "$unset", "$max"])
async def test_a_field_that_the_server_sets(memory: World, name: str, operator: str) -> None:
    """Is named as read-only, also for the path below it that does not exist."""
    notes = memory.registry["notes"]
    id_text = (await memory.store.create(notes, ANN, {"title": "a"})).document["id"]
    [fault] = await refusal(memory, "notes", id_text, {operator: {name: 5}})
    assert fault.type == ("extra_forbidden" if "." in name else "read_only")


@pytest.mark.parametrize(
    ("content", "loc", "type"),
    [
        ([], ("body",), "object_type"),
        ({}, ("body",), "object_type"),
        ({"text": "a"}, ("body", "text"), "unknown_operator"),
        ({"$rename": {"text": "code"}}, ("body", "$rename"), "unknown_operator"),
        ({"$where": "1"}, ("body", "$where"), "unknown_operator"),
        ({"$currentDate": {"at": True}}, ("body", "$currentDate"), "unknown_operator"),
        ({"$set": []}, ("body", "$set"), "object_type"),
        ({"$set": {"": 1}}, ("body", "$set", ""), "extra_forbidden"),
        ({"$set": {"_id": 1}}, ("body", "$set", "_id"), "extra_forbidden"),
        ({"$set": {"__proto__": 1}}, ("body", "$set", "__proto__"), "extra_forbidden"),
        ({"$set": {"__class__.x": 1}}, ("body", "$set", "__class__.x"), "extra_forbidden"),
        ({"$set": {"words.$": "a"}}, ("body", "$set", "words.$"), "extra_forbidden"),
        ({"$set": {"words.$[]": "a"}}, ("body", "$set", "words.$[]"), "extra_forbidden"),
        ({"$set": {"part.nope": 1}}, ("body", "$set", "part.nope"), "extra_forbidden"),
        ({"$set": {"anything": {"$gt": 1}}}, ("body", "$set", "anything", "$gt"), "key_name"),
        ({"$set": {"anything": {"a": [2**53]}}}, ("body", "$set", "anything", "a", 0), "int_range"),
        ({"$push": {"anything": {"a": {"$b": 1}}}}, ("body", "$push", "anything", "a", "$b"), "key_name"),
        ({"$set": {"text": 1}}, ("body", "$set", "text"), "string_type"),
        ({"$set": {"at": "yesterday"}}, ("body", "$set", "at"), "datetime"),
        ({"$set": {"parts": [{"name": "a"}, {"name": 1}]}}, ("body", "$set", "parts", 1, "name"), "string_type"),
        ({"$set": {"words.2": 5}}, ("body", "$set", "words.2"), "string_type"),
        ({"$set": {"words.9999999": "a"}}, ("body", "$set", "words.9999999"), "path"),
        ({"$set": {"words.a": "a"}}, ("body", "$set", "words.a"), "extra_forbidden"),
        ({"$set": {"anything.a.b": 1}}, ("body", "$set", "anything.a.b"), "path"),
        ({"$inc": {"whole": "1"}}, ("body", "$inc", "whole"), "type_error"),
        ({"$inc": {"whole": True}}, ("body", "$inc", "whole"), "type_error"),
        ({"$inc": {"whole": None}}, ("body", "$inc", "whole"), "type_error"),
        ({"$inc": {"whole": {"$gt": 1}}}, ("body", "$inc", "whole", "$gt"), "key_name"),
        ({"$inc": {"whole": 0.5}}, ("body", "$inc", "whole"), "int_type"),
        ({"$inc": {"whole": GREATEST}}, ("body", "$inc", "whole"), "int_range"),
        ({"$mul": {"whole": GREATEST}}, ("body", "$mul", "whole"), "int_range"),
        ({"$mul": {"number": 1e308}}, ("body", "$mul", "number"), "finite_number"),
        ({"$inc": {"money": "NaN"}}, ("body", "$inc", "money"), "type_error"),
        ({"$inc": {"money": "1e-40"}}, ("body", "$inc", "money"), "decimal"),
        ({"$mul": {"money": "9e6144"}}, ("body", "$mul", "money"), "decimal"),
        ({"$inc": {"text": 1}}, ("body", "$inc", "text"), "type_error"),
        ({"$inc": {"flag": 1}}, ("body", "$inc", "flag"), "type_error"),
        ({"$min": {"at": 5}}, ("body", "$min", "at"), "type_error"),
        ({"$max": {"part": {"a": 1}}}, ("body", "$max", "part"), "type_error"),
        ({"$push": {"text": "a"}}, ("body", "$push", "text"), "type_error"),
        ({"$push": {"words": 1}}, ("body", "$push", "words"), "string_type"),
        ({"$push": {"words": {"$each": "a"}}}, ("body", "$push", "words", "$each"), "list_type"),
        ({"$push": {"words": {"$each": ["a"], "$sort": 1}}}, ("body", "$push", "words", "$sort"), "unknown_operator"),
        ({"$push": {"words": {"$slice": 1}}}, ("body", "$push", "words", "$each"), "list_type"),
        ({"$push": {"words": {"$each": [], "$slice": 1.5}}}, ("body", "$push", "words", "$slice"), "int_type"),
        ({"$addToSet": {"words": {"$each": [], "$slice": 1}}}, ("body", "$addToSet", "words", "$slice"),
         "unknown_operator"),
        ({"$pull": {"words": {"$where": "1"}}}, ("body", "$pull", "words", "$where"), "unknown_operator"),
        ({"$pull": {"words": {"$in": [5]}}}, ("body", "$pull", "words", "$in", 0), "type_error"),
        ({"$pull": {"parts": {"nope": 1}}}, ("body", "$pull", "parts", "nope"), "unknown_field"),
        ({"$pull": {"anything": {"a": {"$regex": "a"}}}}, ("body", "$pull", "anything", "a", "$regex"),
         "unknown_operator"),
        ({"$pull": {"text": "a"}}, ("body", "$pull", "text"), "type_error"),
        ({"$set": {"part": None, "part.name": "a"}}, ("body", "$set", "part.name"), "conflicting_paths"),
        ({"$set": {"whole": 1}, "$inc": {"whole": 1}}, ("body", "$inc", "whole"), "conflicting_paths"),
        ({"$push": {"words": "a"}, "$set": {"words.0": "b"}}, ("body", "$set", "words.0"), "conflicting_paths"),
    ],
)  # fmt: skip
async def test_what_is_refused(memory: World, content: Any, loc: tuple[str | int, ...], type: str) -> None:
    """With the place of the fault, and nothing changed."""
    id_text = await specimen(memory, whole=7, number=4.5, words=["a", "b"], money=Decimal128("1.50"), anything={"a": 1})
    if content == {"$inc": {"money": "1e-40"}}:
        await memory.database.raw.specimens.update_one({}, {"$set": {"money": Decimal128("1.5")}})
    faults = await refusal(memory, "specimens", id_text, content)
    assert [(fault.loc, fault.type) for fault in faults] == [(loc, type)]


async def test_more_paths_than_anybody_needs(memory: World) -> None:
    """Are refused before any is looked at, over all operators together."""
    id_text = await specimen(memory)
    many = {f"counts.k{number}": 1 for number in range(150)}
    [fault] = await refusal(memory, "specimens", id_text, {"$set": many, "$unset": {f"{k}x": 1 for k in many}})
    assert (fault.loc, fault.type) == (("body", "$unset"), "too_long")


async def test_all_faults_are_named(memory: World) -> None:
    """Those that need no document, and then those that do."""
    id_text = await specimen(memory, whole=1, text="a")
    faults = await refusal(memory, "specimens", id_text, {"$set": {"nope": 1, "revision": 2}, "$rename": {}})
    assert [fault.loc for fault in faults] == [
        ("body", "$set", "nope"),
        ("body", "$set", "revision"),
        ("body", "$rename"),
    ]
    faults = await refusal(memory, "specimens", id_text, {"$inc": {"text": 1, "flag": 1, "whole": 1}})
    assert [fault.loc for fault in faults] == [("body", "$inc", "text"), ("body", "$inc", "flag")]


async def test_the_resulting_document_is_validated_as_a_whole(memory: World) -> None:
    """A limit of the class, and its own validators; a fault in a field that the caller may not see is not described."""
    notes, raw = memory.registry["notes"], memory.database.raw.notes
    id_text = (await memory.store.create(notes, ANN, {"title": "a", "score": 1})).document["id"]
    [fault] = await refusal(memory, "notes", id_text, {"$set": {"slug": "zero"}})
    assert (fault.loc, "zero has no score" in fault.msg) == (("body",), True)
    assert (await update(memory, "notes", id_text, {"$set": {"slug": "zero", "score": 0}}))["slug"] == "zero"
    await raw.update_one({"_id": ObjectId(id_text)}, {"$set": {"cost": -1}})
    [fault] = await refusal(memory, "notes", id_text, {"$set": {"score": 0}})
    assert (fault.loc, fault.type) == (("body",), "hidden_field")


async def test_types_that_are_not_touched_stay(memory: World) -> None:
    """Beside, below and above what changes: ids, dates, decimals, long integers and doubles."""
    moment = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
    held = {
        "id": ObjectId(),
        "at": moment,
        "sum": Decimal128("1.50"),
        "long": Int64(5),
        "double": 2.0,
        "list": [moment],
    }
    part = {"name": "p", "weight": Decimal128("0.10"), "made": moment}
    id_text = await specimen(memory, anything=held, part=part, parts=[part], by_name={"x": part})
    stored = await update(
        memory,
        "specimens",
        id_text,
        {
            "$set": {"anything.new": 1, "part.name": "q", "parts.0.name": "q", "by_name.x.name": "q"},
            "$push": {"anything.list": 7},
        },
    )
    assert stored["anything"] == held | {"list": [moment, 7], "new": 1}
    assert [type(stored["anything"][name]) for name in ("sum", "double", "id")] == [Decimal128, float, ObjectId]
    for changed in (stored["part"], stored["parts"][0], stored["by_name"]["x"]):
        assert bytes(changed.pop("seal")) == b""
        assert changed == part | {"name": "q"}
        assert str(changed["weight"]) == "0.10"


async def test_decimals_are_exact_and_integers_stay_integers(memory: World) -> None:
    """0.1 is a tenth, also when it comes as a JSON number; seven times a half is refused for an integer."""
    id_text = await specimen(memory, money=Decimal128("0.1"), whole=7, number=0.5, exact=Decimal128("1.10"))
    stored = await update(
        memory, "specimens", id_text, {"$inc": {"money": "0.2", "whole": 2, "number": 1, "exact": 0.1}}
    )
    assert str(stored["money"]) == "0.3"
    assert (stored["whole"], type(stored["whole"])) == (9, int)
    assert (stored["number"], type(stored["number"])) == (1.5, float)
    assert str(stored["exact"]) == "1.20"
    stored = await update(memory, "specimens", id_text, {"$inc": {"money": 0.1}, "$mul": {"whole": -2, "number": 3}})
    assert (str(stored["money"]), stored["whole"], stored["number"]) == ("0.4", -18, 4.5)


async def test_bounds_of_declared_types(memory: World) -> None:
    """Dates and decimals are compared as what they are and not as texts."""
    id_text = await specimen(memory, at=dt.datetime(2024, 5, 1, tzinfo=dt.UTC), money=Decimal128("9"))
    later: dict[str, dict[str, Any]] = {
        "$max": {"at": "2024-05-01T12:00:00+02:00", "money": "10"},
        "$min": {"whole": -1, "key": str(ObjectId())},
    }
    assert (await refusal(memory, "specimens", id_text, later))[0].loc == ("body", "$min", "key")
    del later["$min"]["key"]
    stored = await update(memory, "specimens", id_text, later)
    assert stored["at"] == dt.datetime(2024, 5, 1, 10, tzinfo=stored["at"].tzinfo)
    assert (str(stored["money"]), stored["whole"]) == ("10", -1)


async def test_sets_know_equal_elements(memory: World) -> None:
    """Ids given as texts, decimals of another scale, objects in another order of their fields."""
    part = {"name": "p", "weight": Decimal128("1.0"), "made": None, "seal": b""}
    id_text = await specimen(memory, parts=[part], labels=["a"])
    same = {"seal": "", "made": None, "weight": "1.00", "name": "p"}
    stored = await update(
        memory, "specimens", id_text, {"$addToSet": {"parts": same, "labels": {"$each": ["a", "b", "b"]}}}
    )
    assert (len(stored["parts"]), stored["labels"]) == (1, ["a", "b"])
    stored = await update(memory, "specimens", id_text, {"$pull": {"parts": {"weight": {"$gte": 1}}, "labels": "a"}})
    assert (stored["parts"], stored["labels"]) == ([], ["b"])


async def test_a_patch_may_be_applied_again(memory: World) -> None:
    """Applying it changes neither the patch nor what it put into an earlier document."""
    specimens = memory.registry["specimens"]
    ids = [await specimen(memory) for _ in range(2)]
    patch = memory.store.prepare(specimens, ANN, PatchKind.OPERATORS, {"$push": {"anything": {"a": [1]}}})
    for id_text in ids * 2:
        await memory.store.patch(specimens, id_text, ANN, patch)
        await update(memory, "specimens", id_text, {"$push": {"anything.0.a": 2}})
    for id_text in ids:
        found = await memory.store.get(specimens, id_text, ANN)
        assert found.document["anything"] == [{"a": [1, 2, 2]}, {"a": [1]}]
