"""The store's contract, on both implementations of `Database`: rights, preconditions, ids, revisions, repair."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId, Regex, Timestamp

from documents import (
    ANONYMOUS,
    DocumentRefused,
    Duplicate,
    Forbidden,
    InvalidInput,
    NotFound,
    Preconditions,
    Stale,
    Stored,
    json_schema,
    parse_tags,
)
from tests.documents.classes import ADMIN, ANN, BOB, MODERATOR, World

ABSENT = Preconditions(if_none_match=())


async def stored(world: World, name: str, id_text: str) -> Stored:
    found = await world.database.raw[name].find_one({"_id": ObjectId(id_text)})
    assert found is not None
    return found


async def test_an_unreadable_document_is_not_there(contract: World) -> None:
    """Somebody else's draft is NotFound for every verb, exactly as a document that does not exist."""
    posts, store = contract.registry["posts"], contract.store
    draft = await store.create(posts, ANN, {"title": "draft"})
    for id_text in (draft.document["id"], str(ObjectId())):
        for caller in (ANONYMOUS, BOB):
            with pytest.raises(NotFound):
                await store.get(posts, id_text, caller)
            with pytest.raises(NotFound):
                await store.replace(posts, id_text, caller, {"title": "x"})
            with pytest.raises(NotFound):
                await store.merge_patch(posts, id_text, caller, {"title": "x"})
            with pytest.raises(NotFound):
                await store.delete(posts, id_text, caller)
    assert (await store.get(posts, draft.document["id"], MODERATOR)).document == draft.document


@pytest.mark.parametrize("nan", [float("nan"), [1, [2, {"a": float("nan")}]]], ids=["plain", "nested"])
async def test_a_document_that_holds_nan(contract: World, nan: Any) -> None:
    """NaN differs from itself on the embedded server; the document can be changed and deleted all the same."""
    posts, store = contract.registry["posts"], contract.store
    if not contract.database.in_memory:
        await contract.database.raw.command("collMod", "posts", validationLevel="off")
    post = await store.create(posts, ANN, {"title": "calm"})
    id_text = post.document["id"]
    await contract.database.raw.posts.update_one({"_id": ObjectId(id_text)}, {"$set": {"extra": nan}})
    changed = await store.merge_patch(posts, id_text, ANN, {"title": "flood"})
    assert changed.document["title"] == "flood"
    assert "extra" in await stored(contract, "posts", id_text)
    await store.delete(posts, id_text, ANN)


async def test_a_change_beside_nan_is_not_lost(world: World) -> None:
    """The condition for a document with NaN still sees a change of any other field, and a new field."""
    collection = world.database.raw.posts
    await collection.database.command("collMod", "posts", validationLevel="off")
    read = {"_id": ObjectId(), "title": "a", "status": "draft", "n": float("nan")}
    for change in ({"$set": {"title": "b"}}, {"$set": {"new": 1}}, {"$unset": {"status": 1}}):
        await collection.insert_one(dict(read))
        await collection.update_one({"_id": read["_id"]}, change)
        assert not await world.database.delete_if_unchanged("posts", read, None)
        await collection.delete_one({"_id": read["_id"]})


async def test_creating_under_one_id_at_once(contract: World) -> None:
    """Of ten that create under the same new id one succeeds, and the others are told that it exists: Stale."""
    posts, store, id_text = contract.registry["posts"], contract.store, str(ObjectId())
    answers = await asyncio.gather(
        *(store.replace(posts, id_text, ANN, {"title": f"{i}"}, ABSENT) for i in range(10)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == [*["Stale"] * 9, "tuple"]


async def test_a_readable_document_of_another_is_forbidden(contract: World) -> None:
    """What may be read but not changed answers Forbidden, and stays as it is."""
    posts, store = contract.registry["posts"], contract.store
    post = await store.create(posts, ANN, {"title": "open", "status": "published"})
    for caller in (ANONYMOUS, BOB):
        with pytest.raises(Forbidden):
            await store.merge_patch(posts, post.document["id"], caller, {"title": "x"})
        with pytest.raises(Forbidden):
            await store.delete(posts, post.document["id"], caller)
    assert (await store.get(posts, post.document["id"], ANN)).document == post.document


async def test_an_author_can_neither_hide_nor_unhide(contract: World) -> None:
    """Create and update rules hold before and after the write: only moderators pass through `hidden`."""
    posts, store = contract.registry["posts"], contract.store
    with pytest.raises(Forbidden):
        await store.create(posts, ANN, {"title": "a", "status": "hidden"})
    post = await store.create(posts, ANN, {"title": "a", "status": "published"})
    id_text = post.document["id"]
    with pytest.raises(Forbidden):
        await store.merge_patch(posts, id_text, ANN, {"status": "hidden"})
    await store.merge_patch(posts, id_text, MODERATOR, {"status": "hidden"})
    for patch in ({"status": "published"}, {"title": "b"}):
        with pytest.raises(Forbidden):
            await store.merge_patch(posts, id_text, ANN, patch)
    with pytest.raises(Forbidden):
        await store.delete(posts, id_text, ANN)
    with pytest.raises(NotFound):
        await store.get(posts, id_text, BOB)
    assert (await store.merge_patch(posts, id_text, MODERATOR, {"status": "draft"})).document["revision"] == 3


async def test_who_may_never_create_is_told_so_first(contract: World) -> None:
    """The body of a caller who may create nothing is not looked at."""
    with pytest.raises(Forbidden):
        await contract.store.create(contract.registry["posts"], ANONYMOUS, {"nonsense": 1})


async def test_each_write_raises_the_revision(contract: World) -> None:
    """create 1, patch 2, replace 3; the time of creation stays, that of the update moves."""
    notes, store = contract.registry["notes"], contract.store
    made = await store.create(notes, ANN, {"title": "a"})
    patched = await store.merge_patch(notes, made.document["id"], ANN, {"score": 1})
    replaced, _ = await store.replace(notes, made.document["id"], ANN, {"title": "b"})
    assert [f.document["revision"] for f in (made, patched, replaced)] == [1, 2, 3]
    assert made.document["created_at"] == replaced.document["created_at"]
    assert replaced.document["score"] == 0
    assert made.position <= patched.position <= replaced.position


async def test_a_replacement_keeps_what_the_caller_cannot_set(contract: World) -> None:
    """Hidden, read-only, set-on-create and invisible fields survive a PUT by somebody without rights to them."""
    notes, store = contract.registry["notes"], contract.store
    made = await store.create(notes, ADMIN, {"title": "a", "cost": 7})
    id_text = made.document["id"]
    await contract.database.raw["notes"].update_one({"_id": ObjectId(id_text)}, {"$set": {"checked": True}})
    await store.replace(notes, id_text, ANN, {"title": "b"})
    after = await stored(contract, "notes", id_text)
    assert (after["cost"], after["hush"], after["checked"], after["owner_id"]) == (7, "quiet", True, ADMIN.user_id)


async def test_a_patch_with_null(contract: World) -> None:
    """Null sets null where the class knows it, gives others their default again, and cannot remove what is required."""
    specimens, store = contract.registry["specimens"], contract.store
    made = await store.create(specimens, ANN, {"must": 1, "text": "x", "usual": 6, "counts": {"a": 1, "b": 2}})
    id_text = made.document["id"]
    patch = {"must": None, "text": None, "usual": None, "counts": {"a": None, "c": 3}}
    patched = (await store.merge_patch(specimens, id_text, ANN, patch)).document
    assert (patched["must"], patched["text"], patched["usual"]) == (None, "text", None)
    assert patched["counts"] == {"b": 2, "c": 3}
    assert (await store.get(specimens, id_text, ANN)).document == patched
    posts = contract.registry["posts"]
    post = await store.create(posts, ANN, {"title": "a"})
    with pytest.raises(DocumentRefused) as refused:
        await store.merge_patch(posts, post.document["id"], ANN, {"title": None})
    assert refused.value.faults[0].loc == ("body", "title")


async def test_a_patch_leaves_free_values_their_types(contract: World) -> None:
    """What a patch does not name inside an `Any` field is not turned into JSON."""
    specimens, store = contract.registry["specimens"], contract.store
    made = await store.create(specimens, ANN, {"must": 1})
    _id = ObjectId(made.document["id"])
    inner = {"id": ObjectId(), "n": Int64(5), "d": Decimal128("1.10"), "t": Timestamp(5, 1), "r": Regex("^a")}
    await contract.database.raw["specimens"].update_one({"_id": _id}, {"$set": {"anything": inner}})
    await store.merge_patch(specimens, str(_id), ANN, {"anything": {"x": 1}})
    await store.merge_patch(specimens, str(_id), ANN, {"text": "y"})
    after = await stored(contract, "specimens", str(_id))
    assert after["anything"] == inner | {"x": 1}


@pytest.mark.parametrize("stale", [('"other"',), ('"a"', '"b"')])
async def test_a_stale_tag_stops_every_write(contract: World, stale: tuple[str, ...]) -> None:
    """If-Match with another document's tag is Stale for PUT, PATCH and DELETE."""
    notes, store = contract.registry["notes"], contract.store
    made = await store.create(notes, ANN, {"title": "a"})
    id_text, conditions = made.document["id"], Preconditions(if_match=stale)
    with pytest.raises(Stale):
        await store.replace(notes, id_text, ANN, {"title": "b"}, conditions)
    with pytest.raises(Stale):
        await store.merge_patch(notes, id_text, ANN, {"title": "b"}, conditions)
    with pytest.raises(Stale):
        await store.delete(notes, id_text, ANN, conditions)
    assert (await store.get(notes, id_text, ANN)).document == made.document


async def test_a_fresh_tag_lets_a_write_through(contract: World) -> None:
    """If-Match with the current tag, also behind `W/`, and `*`."""
    notes, store = contract.registry["notes"], contract.store
    made = await store.create(notes, ANN, {"title": "a"})
    id_text = made.document["id"]
    weak = Preconditions(if_match=parse_tags(f'"other", W/{made.etag}', "If-Match"))
    patched = await store.merge_patch(notes, id_text, ANN, {"score": 1}, weak)
    with pytest.raises(Stale):
        await store.merge_patch(notes, id_text, ANN, {"score": 2}, weak)
    await store.delete(notes, id_text, ANN, Preconditions(if_match=(patched.etag,)))
    with pytest.raises(NotFound):
        await store.delete(notes, id_text, ANN, Preconditions(if_match=()))


async def test_a_direct_write_makes_the_tag_stale(contract: World) -> None:
    """A person in mongosh changes the tag without touching the revision."""
    notes, store = contract.registry["notes"], contract.store
    made = await store.create(notes, ANN, {"title": "a"})
    await contract.database.raw["notes"].update_one({"title": "a"}, {"$set": {"score": 9}})
    with pytest.raises(Stale):
        await store.merge_patch(notes, made.document["id"], ANN, {"title": "b"}, Preconditions(if_match=(made.etag,)))


async def test_creating_under_the_clients_id(contract: World) -> None:
    """PUT with `If-None-Match: *` creates once; the second time it is Stale and nothing changes."""
    notes, store = contract.registry["notes"], contract.store
    id_text = str(ObjectId())
    found, created = await store.replace(notes, id_text, ANN, {"title": "mine"}, ABSENT)
    assert (created, found.document["id"]) == (True, id_text)
    with pytest.raises(Stale):
        await store.replace(notes, id_text, ANN, {"title": "again"}, ABSENT)
    assert (await store.get(notes, id_text, ANN)).document["title"] == "mine"


async def test_creating_under_the_id_of_an_unreadable_document(contract: World) -> None:
    """The id is taken, which is all that is told."""
    posts, store = contract.registry["posts"], contract.store
    draft = await store.create(posts, ANN, {"title": "draft"})
    with pytest.raises(Stale):
        await store.replace(posts, draft.document["id"], BOB, {"title": "x"}, ABSENT)


@pytest.mark.parametrize("id_text", ["bulk", "distinct", "reports", "import", "", "a\0b", "x" * 201, "\ud800"])
async def test_texts_that_are_never_ids(contract: World, id_text: str) -> None:
    """Reserved words and texts that no URL can carry are refused as ids."""
    with pytest.raises(InvalidInput) as refused:
        await contract.store.replace(contract.registry["keyed"], id_text, ANN, {}, ABSENT)
    assert refused.value.faults[0].loc == ("path", "id")


@pytest.mark.parametrize("id_text", ["", "1", "zz" * 12, "é" * 24, "0" * 25, "{}", "\ud800" * 24])
async def test_a_malformed_id_is_refused(contract: World, id_text: str) -> None:
    """An id that cannot be one is a fault of the request and not a missing document."""
    with pytest.raises(InvalidInput):
        await contract.store.get(contract.registry["notes"], id_text, ANN)


async def test_text_ids(contract: World) -> None:
    """A class whose id is a text gets one made, or takes the client's."""
    keyed, store = contract.registry["keyed"], contract.store
    made = await store.create(keyed, ANN, {"body": "a"})
    assert (await store.get(keyed, made.document["id"], ANN)).document == made.document
    found, _ = await store.replace(keyed, "my/own id", ANN, {"body": "b"}, ABSENT)
    assert (await store.get(keyed, "my/own id", ANN)).document == found.document


async def test_a_duplicate_names_its_field(world: World) -> None:
    """The unique index's fields are named, but not those that the caller cannot see."""
    notes, store = world.registry["notes"], world.store
    await store.create(notes, ANN, {"title": "a", "slug": "s"})
    with pytest.raises(Duplicate) as by_slug:
        await store.create(notes, ANN, {"title": "b", "slug": "s"})
    assert by_slug.value.fields == ("slug",)
    with pytest.raises(Duplicate) as by_hush:
        await store.create(notes, ANN, {"title": "a"})
    assert by_hush.value.fields == ("title",)
    other = await store.create(notes, ANN, {"title": "c", "slug": "t"})
    with pytest.raises(Duplicate):
        await store.merge_patch(notes, other.document["id"], ANN, {"slug": "s"})


async def broken(world: World, **fields: Any) -> str:
    """A document as a person may have written it before there was a validator."""
    raw = world.database.raw
    if not world.database.in_memory:
        await raw.command({"collMod": "notes", "validationLevel": "off"})
    _id = ObjectId()
    await raw["notes"].insert_one({"_id": _id} | fields)
    if not world.database.in_memory:
        await raw.command({"collMod": "notes", "validationLevel": "strict"})
    return str(_id)


async def test_a_document_that_breaks_the_rules_is_served_and_repaired(contract: World) -> None:
    """Wrong types and missing fields are served as they are; PUT and PATCH make them right."""
    notes, store = contract.registry["notes"], contract.store
    id_text = await broken(contract, title=5, score={"a": 1}, created_at="once", revision="many", extra=1)
    found = await store.get(notes, id_text, ANN)
    shown = {"id": id_text, "title": 5, "score": {"a": 1}, "created_at": "once", "revision": "many"}
    assert found.document == shown | {"invalid": ["title", "score", "created_at", "revision"]}
    with pytest.raises(DocumentRefused) as refused:
        await store.merge_patch(notes, id_text, ANN, {"slug": "s"})
    assert {f.loc for f in refused.value.faults} == {("body", "title"), ("body", "score")}
    patched = await store.merge_patch(notes, id_text, ANN, {"title": "now", "score": 2})
    assert (patched.document["title"], patched.document["score"], patched.document["revision"]) == ("now", 2, 1)
    assert patched.document["created_at"].endswith("Z")
    second = await broken(contract, title=[])
    replaced, _ = await store.replace(notes, second, ANN, {"title": "right"})
    assert replaced.document["title"] == "right"


async def test_a_fault_in_a_hidden_field_names_no_field(contract: World) -> None:
    """A caller learns that the document is faulty where they cannot see, and nothing else."""
    notes, store = contract.registry["notes"], contract.store
    id_text = await broken(contract, title="a", hush=5, cost=-1)
    with pytest.raises(DocumentRefused) as refused:
        await store.merge_patch(notes, id_text, ANN, {"score": 1})
    assert [f.loc for f in refused.value.faults] == [("body",)]
    assert "hush" not in str(refused.value)
    assert "cost" not in str(refused.value)
    with pytest.raises(DocumentRefused) as seen:
        await store.merge_patch(notes, id_text, ADMIN, {"score": 1})
    assert ("body", "cost") in {f.loc for f in seen.value.faults}


async def test_undeclared_fields_inside_documents_stay(world: World) -> None:
    """Until the field that they are in is changed; the collection's validator is passed over for nothing else."""
    specimens, store = world.registry["specimens"], world.store
    part = {"name": "a", "newer": [1]}
    made = await world.database.raw["specimens"].insert_one(
        {"must": 1, "part": part, "parts": [{"name": "b"}, part]}, bypass_document_validation=True
    )
    id_text = str(made.inserted_id)
    patched = await store.merge_patch(specimens, id_text, ANN, {"text": "x"})
    assert patched.document["invalid"] == ["part", "parts"]
    kept = await stored(world, "specimens", id_text)
    assert (kept["part"]["newer"], kept["parts"][1]["newer"], "newer" in kept["parts"][0]) == ([1], [1], False)
    # The same revision, since nothing has changed.
    again = await store.merge_patch(specimens, id_text, ANN, {"text": "x"})
    assert (again.changed, again.document["revision"]) == (False, patched.document["revision"])
    await store.merge_patch(specimens, id_text, ANN, {"part": {"name": "c"}})
    kept = await stored(world, "specimens", id_text)
    assert (kept["part"]["name"], "newer" in kept["part"], kept["parts"][1]["newer"]) == ("c", False, [1])
    whole, _ = await store.replace(specimens, id_text, ANN, {"must": 1, "parts": [{"name": "b"}, {"name": "a"}]})
    assert "invalid" not in whole.document


async def test_set_that_holds_a_value_twice(world: World) -> None:
    """The class makes one of the two, also where the write is about another field."""
    specimens = world.registry["specimens"]
    made = await world.database.raw["specimens"].insert_one(
        {"must": 1, "labels": ["a", "a"]}, bypass_document_validation=True
    )
    patched = await world.store.merge_patch(specimens, str(made.inserted_id), ANN, {"text": "x"})
    assert patched.document["labels"] == ["a"]


async def test_revision_that_cannot_be_counted_on(world: World) -> None:
    """It begins anew before it leaves the integers that every reader of JSON has."""
    for revision in (2**53 - 1, 2**63 - 1):
        made = await world.database.raw["counters"].insert_one({"revision": Int64(revision)})
        patched = await world.store.merge_patch(world.registry["counters"], str(made.inserted_id), ANN, {"by_api": 1})
        assert patched.document["revision"] == 1


async def test_rules_of_another_version_of_the_class(world: World) -> None:
    """What its validator does not know may stay as it is and not be changed; its other rules hold for every write."""
    notes, raw = world.registry["notes"], world.database.raw
    id_text = await broken(world, title="long", hush="1", score=1)
    rules = json_schema(notes)
    del rules["properties"]["score"]
    await raw.command({"collMod": "notes", "validator": {"$jsonSchema": rules}})
    await world.store.merge_patch(notes, id_text, ANN, {"title": "longer"})
    assert (await stored(world, "notes", id_text))["score"] == 1
    with pytest.raises(DocumentRefused) as refused:
        await world.store.merge_patch(notes, id_text, ANN, {"score": 2})
    assert [fault.loc for fault in refused.value.faults] == [("body", "score")]
    rules["properties"]["title"]["maxLength"] = 3
    await raw.command({"collMod": "notes", "validator": {"$jsonSchema": rules}})
    with pytest.raises(DocumentRefused) as refused:
        await world.store.merge_patch(notes, id_text, ANN, {"slug": "s"})
    assert ("body", "title") in [fault.loc for fault in refused.value.faults]


async def test_undeclared_fields_stay(world: World) -> None:
    """A newer version of the class may have written them, so the validator is passed over for them."""
    notes, store = world.registry["notes"], world.store
    refused = await broken(world, title="a", hush="1", newer=1)
    await store.merge_patch(notes, refused, ANN, {"score": 1})
    assert (await stored(world, "notes", refused))["newer"] == 1
    await world.database.raw.command({"collMod": "notes", "validationLevel": "off"})
    kept = str((await world.database.raw["notes"].insert_one({"title": "b", "hush": "2", "newer": 1})).inserted_id)
    await store.merge_patch(notes, kept, ANN, {"score": 1})
    assert (await stored(world, "notes", kept))["newer"] == 1
    assert "newer" not in (await store.get(notes, kept, ADMIN)).document
