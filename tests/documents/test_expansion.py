"""Expansion: references embedded through the rules of the class they refer to, one query a relation."""

from __future__ import annotations

from typing import Any

import pytest
from bson import ObjectId

from documents import (
    ANONYMOUS,
    Expansions,
    FilterRefused,
    ListQuery,
    Principal,
    parse_expand,
)
from documents.expansion import MAX_EMBEDDED, MAX_RELATIONS
from tests.documents.classes import ADMIN, ANN, BOB, World
from tests.documents.commands import Finds


async def expanded(world: World, name: str, principal: Principal, *names: str) -> list[dict[str, Any]]:
    """What a list of the class shows under `expanded`."""
    resource = world.registry[name]
    expansion = parse_expand(names, resource, world.registry, principal)
    page = await world.lists.page(resource, ListQuery(limit=100), principal)
    documents = [item.document for item in page.items]
    embedded = await Expansions(world.database, world.store).embed(documents, expansion, principal)
    assert [{k: v for k, v in d.items() if k != "expanded"} for d in embedded] == documents
    return [document["expanded"] for document in embedded]


async def post(world: World, principal: Principal, status: str) -> ObjectId:
    found = await world.store.create(world.registry["posts"], principal, {"title": "Title", "status": status})
    return ObjectId(found.document["id"])


async def test_references_that_lead_nowhere_for_the_caller(contract: World) -> None:
    """What one may not read, what is gone and what no document can be: one and the same."""
    draft, gone = await post(contract, BOB, "draft"), ObjectId()
    shelves = contract.database.raw["shelves"]
    if not contract.database.in_memory:
        await contract.database.raw.command({"collMod": "shelves", "validationLevel": "off"})
    for reference in (draft, gone, "nonsense", 7):
        await shelves.insert_one({"post_ids": [reference], "comment_id": reference, "keyed_id": "none"})
    found = await expanded(contract, "shelves", ANN, "post_ids", "comment_id", "keyed_id")
    assert found == [{"post_ids": [], "comment_id": None, "keyed_id": None}] * 4
    assert (await expanded(contract, "shelves", BOB, "post_ids"))[0]["post_ids"][0]["id"] == str(draft)


async def test_lists_of_references(contract: World) -> None:
    """The readable ones, in the order of the list, as often as they stand in it."""
    mine, theirs = await post(contract, ANN, "draft"), await post(contract, BOB, "draft")
    open_ = await post(contract, BOB, "published")
    await contract.database.raw["shelves"].insert_one({"post_ids": [open_, theirs, mine, open_]})
    await contract.database.raw["shelves"].insert_one({})

    async def ids(principal: Principal) -> list[Any]:
        return [
            [post["id"] for post in one.get("post_ids", ["absent"]) if isinstance(post, dict)]
            for one in await expanded(contract, "shelves", principal, "post_ids")
        ]

    assert await ids(ANN) == [[str(open_), str(mine), str(open_)], []]
    assert await ids(ANONYMOUS) == [[str(open_), str(open_)], []]
    assert (await expanded(contract, "shelves", ANN, "post_ids"))[1] == {}


async def test_visible_fields_of_the_other_class(contract: World) -> None:
    """A user is seen as that caller sees users: without an email, unless by an admin; by nobody anonymous."""
    user = {"username": "zoe", "email": "zoe@example.org", "roles": ["user"], "is_active": True}
    keys = {"username_key": "zoe", "email_key": "zoe@example.org", "password_hash": "x"}
    inserted = await contract.database.raw["users"].insert_one(user | keys)
    await contract.database.raw["notes"].insert_one({"title": "a", "hush": "h", "owner_id": inserted.inserted_id})
    seen = {"id": str(inserted.inserted_id), "username": "zoe"}
    assert await expanded(contract, "notes", ANN, "owner_id") == [{"owner_id": seen}]
    (by_admin,) = await expanded(contract, "notes", ADMIN, "owner_id")
    assert by_admin["owner_id"]["email"] == "zoe@example.org"
    assert "password_hash" not in by_admin["owner_id"]
    assert await expanded(contract, "notes", ANONYMOUS, "owner_id") == [{"owner_id": None}]


async def test_one_query_for_each_relation(finds: Finds, world: World) -> None:
    """However many documents there are, on both levels."""
    posts = [await post(world, ANN, "published") for _ in range(3)]
    author = {"author_id": ANN.user_id, "status": "published", "body": "b"}
    comments = [{"_id": ObjectId(), "post_id": posts[n % 3], **author} for n in range(20)]
    await world.database.raw["comments"].insert_many(comments)
    finds.listens = True
    found = await expanded(world, "comments", BOB, "post_id.author_id", "author_id", "post_id")
    assert len(found) == 20
    assert all(one["post_id"]["expanded"] == {"author_id": None} for one in found)
    assert sorted(find["find"] for find in finds.sent) == ["comments", "posts", "users", "users"]


@pytest.mark.parametrize(
    ("names", "type_"),
    [
        ([], "too_short"),
        (["nope"], "unknown_field"),
        (["secret_id"], "unknown_field"),
        (["secret_id.username"], "unknown_field"),
        (["_id"], "unknown_field"),
        (["id"], "not_a_reference"),
        (["created_at"], "not_a_reference"),
        (["lost_id"], "not_a_reference"),
        (["comment_id.body"], "not_a_reference"),
        (["comment_id.nope"], "unknown_field"),
        (["comment_id."], "unknown_field"),
        (["."], "unknown_field"),
        (["comment_id.post_id.author_id"], "too_deep"),
        (["post_ids", "keyed_id", "comment_id.post_id", "comment_id.author_id", "post_ids.author_id"], "too_long"),
    ],
)
async def test_expansion_that_cannot_be_asked_for(memory: World, names: list[str], type_: str) -> None:
    """Each fault has its place; a field for other roles is as unknown as one that is not there."""
    with pytest.raises(FilterRefused) as refused:
        parse_expand(names, memory.registry["shelves"], memory.registry, ANN)
    assert [(fault.loc, fault.type) for fault in refused.value.faults] == [(("query", "expand"), type_)]
    assert MAX_RELATIONS == 5


async def test_more_documents_than_an_answer_may_embed(memory: World) -> None:
    """Is refused, and not cut in silence."""
    references = [ObjectId() for _ in range(MAX_EMBEDDED + 1)]
    await memory.database.raw["shelves"].insert_one({"post_ids": references})
    with pytest.raises(FilterRefused, match="smaller page"):
        await expanded(memory, "shelves", ANN, "post_ids")
