"""Documents that break the rules: named with every field and reason, by the database's own judgement."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from bson import Decimal128, ObjectId
from pydantic import Field

from documents import BrokenDocument, LiveDocument, ResourceClass, broken_documents, count_broken, inspection
from documents.inspection import Breach
from tests.documents.classes import World


async def stored(world: World, name: str, document: dict[str, Any]) -> str:
    """Store a document past its validator; its id."""
    made = await world.database.raw[name].insert_one(document, bypass_document_validation=True)
    return str(made.inserted_id)


async def named(world: World, name: str) -> list[BrokenDocument]:
    return [document async for document in broken_documents(world.database, world.registry[name])]


BROKEN: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "a field that nobody declared": ({"nope": 1}, [("nope", "there is no such field")]),
    "a missing field": ({"must": ...}, [("must", "it is missing")]),
    "a wrong type": ({"flag": "yes"}, [("flag", "its type is not bool")]),
    "one of several types": ({"whole": "x"}, [("whole", "its type is not int, long")]),
    "a text that is too short": ({"text": ""}, [("text", "it is shorter than 1")]),
    "a text that is too long": ({"text": "x" * 41}, [("text", "it is longer than 40")]),
    "a text against its pattern": ({"code": "A"}, [("code", r"it does not match ^[a-z]+\z")]),
    "an unknown choice": ({"colour": "green"}, [("colour", "it is not one of red, blue")]),
    "an integer out of range": ({"whole": 2**60}, [("whole", "it is above 9007199254740991")]),
    "a revision below one": ({"revision": 0}, [("revision", "it is below 1")]),
    "a value twice": ({"labels": ["a", "a"]}, [("labels", "it holds a value twice")]),
    "a wrong item": ({"words": ["a", 1]}, [("words[]", "its type is not string")]),
    "a wrong value of a map": ({"counts": {"a": "x"}}, [("counts.*", "its type is not int, long")]),
    "none of the alternatives": ({"either": 1.5}, [("either", "it fits none of the alternatives")]),
    "nested faults": (
        {"part": {"weight": 1, "x": 1}},
        [
            ("part.name", "it is missing"),
            ("part.weight", "its type is not decimal"),
            ("part", "it has fields that nobody declared"),
        ],
    ),
    "a fault below an array": ({"parts": [{"name": ""}]}, [("parts[].name", "it is shorter than 1")]),
    "several faults": (
        {"text": 5, "flag": 1, "nope": 1, "must": ...},
        [
            ("nope", "there is no such field"),
            ("must", "it is missing"),
            ("text", "its type is not string"),
            ("flag", "its type is not bool"),
        ],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_document_is_named_with_its_reasons(world: World, case: str) -> None:
    """Every field that breaks a rule, and no other; sound documents are not named."""
    fields, reasons = BROKEN[case]
    document = {name: value for name, value in ({"must": 1} | fields).items() if value is not ...}
    await stored(world, "specimens", {"must": 1, "money": Decimal128("1.5")})
    broken = await stored(world, "specimens", document)
    (found,) = await named(world, "specimens")
    assert (found.collection, found.id) == ("specimens", broken)
    assert sorted(found.breaches, key=str) == sorted((Breach(*reason) for reason in reasons), key=str)
    (count,) = await count_broken(world.database, world.registry, ids=5)
    assert (count.collection, count.count, count.ids) == ("specimens", 1, (broken,))


class Limited(LiveDocument):
    """Bounds that are no values themselves."""

    above: Annotated[int, Field(gt=0)] = 1
    below: Annotated[float, Field(lt=1)] = 0.0

    class Settings:
        name = "limited"


async def test_a_bound_that_is_excluded(world: World) -> None:
    """The reason is true of the bound itself, too."""
    await stored(world, "limited", {"above": 0, "below": 1})
    (found,) = [document async for document in broken_documents(world.database, ResourceClass(Limited))]
    assert found.breaches == [Breach("above", "it is not above 0"), Breach("below", "it is not below 1")]


async def test_many_broken_documents(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are explained at once: each with its own reasons."""
    monkeypatch.setattr(inspection, "_BATCH", 10)
    documents = [{"_id": ObjectId(), "title": "a"} | ({"score": "x"} if n % 2 else {"cost": -1}) for n in range(25)]
    await world.database.raw["notes"].drop_index("hush_title_unique")
    await world.database.raw["notes"].insert_many(documents, bypass_document_validation=True)
    found = {document.id: document.breaches for document in await named(world, "notes")}
    assert found == {
        str(document["_id"]): [
            Breach("score", "its type is not int, long") if "score" in document else Breach("cost", "it is below 0")
        ]
        for document in documents
    }


async def test_nothing_is_broken(world: World) -> None:
    """Nothing is named or counted."""
    assert await named(world, "notes") == []
    assert await count_broken(world.database, world.registry, ids=5) == []


async def test_repaired_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that is right by the time that its reasons are looked for is not named."""
    sound, broken = await stored(world, "counters", {}), await stored(world, "counters", {"by_api": "x"})
    monkeypatch.setattr(inspection, "breaking", lambda _: {})
    collection = world.database.raw["counters"]
    explained = inspection._explained
    batches: list[Any] = []

    async def repaired(*arguments: Any) -> list[BrokenDocument]:
        monkeypatch.undo()
        batches.append(sorted(str(document["_id"]) for document in arguments[2]))
        return await explained(*arguments)

    monkeypatch.setattr(inspection, "_explained", repaired)
    assert [document.id for document in await named(world, "counters")] == [broken]
    assert batches == [sorted([sound, broken])]
    assert await collection.count_documents({}) == 2
