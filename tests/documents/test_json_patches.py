"""JSON Patch on documents of declared classes: RFC 6902, what is hidden, what is refused, and bounds."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId

from documents import DocumentRefused, Fault, Inapplicable, PatchKind, Principal, Stored
from documents.json_patches import MAX_OPERATIONS
from tests.documents.classes import ADMIN, ANN, World
from tests.documents.test_operators import specimen


async def patch(world: World, name: str, id_text: str, content: Any, caller: Principal = ANN) -> Stored:
    """Apply operations; the document as it is stored then."""
    resource = world.registry[name]
    prepared = world.store.prepare(resource, caller, PatchKind.JSON, content)
    await world.store.patch(resource, id_text, caller, prepared)
    stored = await world.database.raw[name].find_one({"_id": ObjectId(id_text)})
    assert stored is not None
    return stored


async def refusal(
    world: World, name: str, id_text: str, content: Any, kind: type[Exception] = DocumentRefused
) -> list[Fault]:
    """The faults; nothing may have changed."""
    before = await world.database.raw[name].find_one({"_id": ObjectId(id_text)})
    with pytest.raises(kind) as refused:
        await patch(world, name, id_text, content)
    assert await world.database.raw[name].find_one({"_id": ObjectId(id_text)}) == before
    assert isinstance(refused.value, DocumentRefused | Inapplicable)
    return list(refused.value.faults)


@pytest.mark.parametrize("hidden", ["hush", "cost"])
@pytest.mark.parametrize("below", ["", "/0", "/a/b", "/-"])
async def test_a_hidden_path_is_one_that_does_not_exist(memory: World, hidden: str, below: str) -> None:
    """For every operation, as target and as source, and whatever is stored there."""
    notes, raw = memory.registry["notes"], memory.database.raw.notes
    id_text = (await memory.store.create(notes, ANN, {"title": "a"})).document["id"]

    def operations(path: str) -> list[dict[str, Any]]:
        return [
            {"op": "test", "path": path, "value": "quiet"},
            {"op": "add", "path": path, "value": 1},
            {"op": "replace", "path": path, "value": 1},
            {"op": "remove", "path": path},
            {"op": "copy", "from": path, "path": "/title"},
            {"op": "move", "from": path, "path": "/title"},
            {"op": "copy", "from": "/title", "path": path},
            {"op": "move", "from": "/slug", "path": path},
        ]

    for content in ("quiet", 7, ["x"]):
        await raw.update_one({"_id": ObjectId(id_text)}, {"$set": {hidden: content}})
        for asked, nothing in zip(operations(f"/{hidden}{below}"), operations(f"/nope{below}"), strict=True):
            faults = await refusal(memory, "notes", id_text, [asked])
            assert faults == await refusal(memory, "notes", id_text, [nothing])
            assert [(fault.msg, fault.type) for fault in faults] == [("there is no such field", "extra_forbidden")]


async def test_the_whole_document_is_what_the_caller_sees(memory: World) -> None:
    """A `test` of the root holds without the hidden fields, and a copy of the root brings none along."""
    id_text = await specimen(memory)
    seen = (await memory.store.get(memory.registry["specimens"], id_text, ANN)).document
    stored = await patch(
        memory,
        "specimens",
        id_text,
        [{"op": "test", "path": "", "value": seen}, {"op": "copy", "from": "", "path": "/anything"}],
    )
    assert set(stored["anything"]) == set(seen)
    notes = memory.registry["notes"]
    note = (await memory.store.create(notes, ANN, {"title": "a"})).document
    await patch(memory, "notes", note["id"], [{"op": "test", "path": "", "value": note}])
    [fault] = await refusal(
        memory, "notes", note["id"], [{"op": "test", "path": "", "value": {**note, "hush": "quiet"}}], Inapplicable
    )
    assert (fault.loc, fault.type) == (("body", 0, "value"), "test_failed")


@pytest.mark.parametrize("name", ["id", "revision", "created_at", "updated_at", "checked"])
async def test_a_field_that_the_server_sets(memory: World, name: str) -> None:
    """Can be tested and copied, and not set, removed or moved."""
    note = (await memory.store.create(memory.registry["notes"], ANN, {"title": "a"})).document
    path = f"/{name}"
    for operation, member in (
        ({"op": "add", "path": path, "value": 5}, "path"),
        ({"op": "replace", "path": path, "value": 5}, "path"),
        ({"op": "remove", "path": path}, "path"),
        ({"op": "move", "from": path, "path": "/title"}, "from"),
        ({"op": "copy", "from": "/title", "path": path}, "path"),
    ):
        [fault] = await refusal(memory, "notes", note["id"], [operation])
        assert (fault.loc, fault.type) == (("body", 0, member), "read_only")
    await patch(memory, "notes", note["id"], [{"op": "test", "path": path, "value": note[name]}])
    if isinstance(note[name], str):
        assert (await patch(memory, "notes", note["id"], [{"op": "copy", "from": path, "path": "/slug"}]))["slug"]


async def test_the_root_is_replaced(memory: World) -> None:
    """As PUT does it; read-only fields may be given as they are, and hidden ones stay."""
    notes = memory.registry["notes"]
    note = (await memory.store.create(notes, ADMIN, {"title": "a", "slug": "s", "score": 3, "cost": 4})).document
    seen = (await memory.store.get(notes, note["id"], ANN)).document
    stored = await patch(
        memory, "notes", note["id"], [{"op": "replace", "path": "", "value": {**seen, "title": "b", "slug": "t"}}]
    )
    assert (stored["title"], stored["slug"], stored["score"], stored["cost"]) == ("b", "t", 3, 4)
    stored = await patch(memory, "notes", note["id"], [{"op": "add", "path": "", "value": {"title": "c"}}])
    assert (stored["title"], stored.get("slug"), stored["score"], stored["cost"]) == ("c", None, 0, 4)
    assert (stored["owner_id"], stored["revision"]) == (ADMIN.user_id, 3)
    for value, loc in (
        ([], ("body", 0, "value")),
        ("a", ("body", 0, "value")),
        ({"title": "d", "hush": "x"}, ("body", 0, "value", "hush")),
        ({"title": "d", "nope": "x"}, ("body", 0, "value", "nope")),
        ({"title": "d", "revision": 9}, ("body", 0, "value", "revision")),
        ({"title": 5}, ("body", 0, "value", "title")),
        ({}, ("body", "title")),
    ):
        [fault] = await refusal(memory, "notes", note["id"], [{"op": "replace", "path": "", "value": value}])
        assert fault.loc == loc
    [fault] = await refusal(memory, "notes", note["id"], [{"op": "copy", "from": "/title", "path": ""}])
    assert (fault.loc, fault.type) == (("body", 0), "object_type")


@pytest.mark.parametrize(
    ("content", "loc", "type"),
    [
        ({}, ("body",), "list_type"),
        ([1], ("body", 0), "object_type"),
        ([{}], ("body", 0, "op"), "enum"),
        ([{"op": ["add"], "path": "/text"}], ("body", 0, "op"), "enum"),
        ([{"op": "increment", "path": "/whole"}], ("body", 0, "op"), "enum"),
        ([{"op": "remove"}], ("body", 0, "path"), "missing"),
        ([{"op": "add", "path": "/text"}], ("body", 0, "value"), "missing"),
        ([{"op": "copy", "path": "/text"}], ("body", 0, "from"), "missing"),
        ([{"op": "add", "path": "text", "value": 1}], ("body", 0, "path"), "json_pointer"),
        ([{"op": "add", "path": "/anything/~2", "value": 1}], ("body", 0, "path"), "json_pointer"),
        ([{"op": "add", "path": "/anything/~", "value": 1}], ("body", 0, "path"), "json_pointer"),
        ([{"op": "add", "path": 5, "value": 1}], ("body", 0, "path"), "json_pointer"),
        ([{"op": "remove", "path": ""}], ("body", 0, "path"), "path"),
        ([{"op": "move", "from": "/part", "path": "/part/name"}], ("body", 0, "path"), "path"),
        ([{"op": "move", "from": "", "path": "/anything"}], ("body", 0, "path"), "path"),
        ([{"op": "add", "path": "/", "value": 1}], ("body", 0, "path"), "extra_forbidden"),
        ([{"op": "add", "path": "/__proto__", "value": 1}], ("body", 0, "path"), "extra_forbidden"),
        ([{"op": "add", "path": "/anything/$a", "value": 1}], ("body", 0, "path"), "extra_forbidden"),
        ([{"op": "add", "path": "/anything/a.b", "value": 1}], ("body", 0, "path"), "extra_forbidden"),
        ([{"op": "add", "path": "/part/nope", "value": 1}], ("body", 0, "path"), "extra_forbidden"),
        ([{"op": "copy", "from": "/text/0", "path": "/code"}], ("body", 0, "from"), "extra_forbidden"),
        ([{"op": "add", "path": "/whole", "value": 2**53}], ("body", 0, "value"), "int_range"),
        ([{"op": "add", "path": "/anything", "value": {"$a": 1}}], ("body", 0, "value", "$a"), "key_name"),
        ([{"op": "add", "path": "/whole", "value": "1"}], ("body", 0, "value"), "int_type"),
        ([{"op": "add", "path": "/words/-", "value": 1}], ("body", 0, "value"), "string_type"),
        ([{"op": "replace", "path": "/words/0", "value": 1}], ("body", 0, "value"), "string_type"),
        ([{"op": "add", "path": "/part", "value": {"name": 1}}], ("body", 0, "value", "name"), "string_type"),
        ([{"op": "add", "path": "/at", "value": "yesterday"}], ("body", 0, "value"), "datetime"),
        ([{"op": "add", "path": "/must", "value": 1}, {"op": "remove", "path": "/must"}], ("body", "must"), "missing"),
    ],
)  # fmt: skip
async def test_what_is_refused(memory: World, content: Any, loc: tuple[str | int, ...], type: str) -> None:
    """With the place of the fault, and nothing changed."""
    id_text = await specimen(memory, words=["a", "b"], part={"name": "p"}, text="abc")
    faults = await refusal(memory, "specimens", id_text, content)
    assert (loc, type) in [(fault.loc, fault.type) for fault in faults]


@pytest.mark.parametrize(
    ("operation", "member"),
    [
        ({"op": "test", "path": "/flag", "value": 0}, "value"),
        ({"op": "test", "path": "/whole", "value": True}, "value"),
        ({"op": "test", "path": "/whole", "value": "1"}, "value"),
        ({"op": "test", "path": "/slug_that_is_not_stored", "value": None}, None),
        ({"op": "test", "path": "/usual", "value": None}, "path"),
        ({"op": "replace", "path": "/usual", "value": 1}, "path"),
        ({"op": "remove", "path": "/usual"}, "path"),
        ({"op": "remove", "path": "/anything/b"}, "path"),
        ({"op": "add", "path": "/anything/b/c", "value": 1}, "path"),
        ({"op": "add", "path": "/anything/text/0", "value": 1}, "path"),
        ({"op": "copy", "from": "/anything/text/0", "path": "/code"}, "from"),
        ({"op": "test", "path": "/words/-", "value": "a"}, "path"),
        ({"op": "remove", "path": "/words/2"}, "path"),
        ({"op": "remove", "path": "/anything/list/01"}, "path"),
        ({"op": "remove", "path": "/anything/list/-1"}, "path"),
        ({"op": "remove", "path": "/anything/list/0a"}, "path"),
        ({"op": "remove", "path": "/anything/list/\N{ARABIC-INDIC DIGIT ONE}"}, "path"),
        ({"op": "add", "path": "/words/3", "value": "c"}, "path"),
        ({"op": "add", "path": "/anything/list/1e0", "value": "c"}, "path"),
        ({"op": "move", "from": "/words/0", "path": "/words/2"}, "path"),
        ({"op": "move", "from": "/anything/list/0", "path": "/anything/list/0/a"}, None),
    ],
)
async def test_what_does_not_fit_the_document(memory: World, operation: dict[str, Any], member: str | None) -> None:
    """Is a conflict with the document as it is, at the operation that meets it; the ones before it are undone."""
    id_text = await specimen(memory, words=["a", "b"], whole=1, flag=False, anything={"text": "t", "list": [1, 2]})
    await memory.database.raw.specimens.update_one({"_id": ObjectId(id_text)}, {"$unset": {"usual": 1}})
    content = [{"op": "replace", "path": "/text", "value": "changed"}, operation]
    if member is None:
        await refusal(memory, "specimens", id_text, content)
    else:
        [fault] = await refusal(memory, "specimens", id_text, content, Inapplicable)
        assert fault.loc == ("body", 1, member)


async def test_operations_are_applied_in_order(memory: World) -> None:
    """Each to what the one before has left; escapes and the end of an array are what RFC 6901 says."""
    id_text = await specimen(memory, words=["a", "b"], anything={"a/b": 1, "m~n": 2, "list": [1]})
    stored = await patch(
        memory,
        "specimens",
        id_text,
        [
            {"op": "test", "path": "/anything/a~1b", "value": 1.0, "comment": "ignored"},
            {"op": "test", "path": "/anything/m~0n", "value": 2},
            {"op": "move", "from": "/anything/a~1b", "path": "/anything/~01"},
            {"op": "add", "path": "/words/-", "value": "c"},
            {"op": "add", "path": "/words/0", "value": "z"},
            {"op": "move", "from": "/words/0", "path": "/words/3"},
            {"op": "copy", "from": "/anything/list", "path": "/anything/list/0"},
            {"op": "remove", "path": "/anything/list/1"},
            {"op": "test", "path": "/anything/list", "value": [[1]]},
            {"op": "move", "from": "/words", "path": "/words"},
        ],
    )
    assert stored["words"] == ["a", "b", "c", "z"]
    assert stored["anything"] == {"m~n": 2, "list": [[1]], "~1": 1}
    assert (await patch(memory, "specimens", id_text, []))["revision"] == stored["revision"]


async def test_types_go_where_values_go(memory: World) -> None:
    """What is left, moved or copied keeps its BSON type, also where anything fits."""
    moment = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
    held = {"id": ObjectId(), "at": moment, "sum": Decimal128("1.50"), "long": Int64(5), "double": 2.0}
    id_text = await specimen(memory, anything=held, at=moment, exact=Decimal128("1.10"))
    stored = await patch(
        memory,
        "specimens",
        id_text,
        [
            {"op": "add", "path": "/anything/new", "value": "2024-05-01T12:00:00.000Z"},
            {"op": "move", "from": "/anything/at", "path": "/anything/moved"},
            {"op": "copy", "from": "/anything/sum", "path": "/anything/list"},
            {"op": "copy", "from": "/exact", "path": "/money"},
            {"op": "copy", "from": "/at", "path": "/anything/when"},
        ],
    )
    expected = {name: value for name, value in held.items() if name != "at"}
    expected |= {"new": "2024-05-01T12:00:00.000Z", "moved": moment, "list": held["sum"], "when": moment}
    assert stored["anything"] == expected
    assert (str(stored["money"]), str(stored["exact"])) == ("1.10", "1.10")


async def test_a_chain_of_copies_is_bounded(memory: World) -> None:
    """Each copy doubles what is there; neither memory nor depth explodes, and the refusal comes soon."""
    id_text = await specimen(memory, anything={"a": "x" * 1_000})
    doubling = [{"op": "copy", "from": "/anything", "path": f"/anything/k{number}"} for number in range(MAX_OPERATIONS)]
    wide = [{"op": "add", "path": "/anything", "value": ["x" * 1_000]}]
    wide += [{"op": "copy", "from": "/anything", "path": "/anything/-"} for _ in range(MAX_OPERATIONS - 1)]
    began = time.monotonic()
    for content, kinds in ((doubling, {"too_deep", "too_long"}), (wide, {"too_deep", "too_long"})):
        [fault] = await refusal(memory, "specimens", id_text, content)
        assert fault.type in kinds
    assert time.monotonic() - began < 5
    [fault] = await refusal(memory, "specimens", id_text, [{"op": "test", "path": "", "value": {}}] * 201)
    assert (fault.loc, fault.type) == (("body",), "too_long")
