"""Fields derived from another document: comments that go along with their post."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from beanie import PydanticObjectId
from bson import ObjectId

from documents import (
    ANONYMOUS,
    DeclarationError,
    DerivedFrom,
    DocumentRefused,
    Keeper,
    LiveDocument,
    MemoryDatabase,
    NotFound,
    Principal,
    References,
    Registry,
    Store,
    perform,
)
from documents.changes import Change, ChangeKind
from documents.derived import Derivations
from documents.models import Comment, Post, User
from documents.positions import Position
from documents.resources import utc_now
from tests.documents.classes import ANN, BOB, MODERATOR, World
from tests.waiting import until


async def moderate(world: World, collection: str, document_id: str, status: str, by: Principal = MODERATOR) -> None:
    """Moderate one document."""
    resource = world.registry[collection]
    body = {"status": status, "reason": "because"}
    await perform(world.store, resource, resource.actions["moderate"], document_id, by, body)


async def post_of(world: World, by: Principal = ANN, status: str = "published") -> str:
    """A post; its id."""
    found = await world.store.create(world.registry["posts"], by, {"title": "A", "status": status})
    return str(found.document["id"])


async def comment_on(world: World, post_id: str, by: Principal = BOB) -> str:
    """A comment on a post; its id."""
    found = await world.store.create(world.registry["comments"], by, {"post_id": post_id, "body": "B"})
    return str(found.document["id"])


async def readable(world: World, comment_id: str, by: Principal = ANONYMOUS) -> bool:
    """Whether a comment is there for somebody."""
    try:
        await world.store.get(world.registry["comments"], comment_id, by)
    except NotFound:
        return False
    return True


@contextlib.asynccontextmanager
async def keeping(world: World) -> AsyncIterator[Keeper]:
    """A keeper at work."""
    keeper = Keeper(world.store.derivations)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def change(collection: str, before: dict[str, Any] | None, after: dict[str, Any]) -> Change:
    """A change as the feed reports it."""
    kind = ChangeKind.INSERT if before is None else ChangeKind.UPDATE
    return Change(Position(1, 1), {}, utc_now(), 100, kind, collection, after["_id"], before, after)


async def test_hiding_a_post(contract: World) -> None:
    """Takes its comments from readers and not from their authors and moderators; publishing it brings back exactly
    those that were there, and a comment's own status is left alone all the time."""
    post, other = await post_of(contract), await post_of(contract)
    shown, hidden, elsewhere = [await comment_on(contract, on) for on in (post, post, other)]
    await moderate(contract, "comments", hidden, "hidden")
    revision = (await contract.store.get(contract.registry["comments"], shown, BOB)).document["revision"]
    await moderate(contract, "posts", post, "hidden")
    assert [await readable(contract, one) for one in (shown, hidden, elsewhere)] == [False, False, True]
    assert await readable(contract, shown, BOB)
    assert not await readable(contract, shown, ANN)
    seen = await contract.store.get(contract.registry["comments"], shown, MODERATOR)
    assert (seen.document["status"], seen.document["post_hidden"]) == ("published", True)
    assert "post_hidden" not in (await contract.store.get(contract.registry["comments"], shown, BOB)).document
    await moderate(contract, "posts", post, "published")
    assert [await readable(contract, one) for one in (shown, hidden, elsewhere)] == [True, False, True]
    assert (await contract.store.get(contract.registry["comments"], shown, BOB)).document["revision"] == revision


async def test_other_ways_to_hide_a_post(contract: World) -> None:
    """A moderator who patches or replaces the post takes its comments along, too."""
    posts = contract.registry["posts"]
    for way in ("patch", "replace"):
        post = await post_of(contract)
        comment = await comment_on(contract, post)
        if way == "patch":
            await contract.store.merge_patch(posts, post, MODERATOR, {"status": "hidden"})
        else:
            await contract.store.replace(posts, post, MODERATOR, {"title": "A", "status": "hidden"})
        assert not await readable(contract, comment), way


async def test_commenting_on_a_hidden_post(contract: World) -> None:
    """Is hidden from the start, and by being moved there; moved away it is seen again."""
    hidden, shown = await post_of(contract), await post_of(contract)
    await moderate(contract, "posts", hidden, "hidden")
    comment = await comment_on(contract, hidden)
    assert not await readable(contract, comment)
    comments = contract.registry["comments"]
    await contract.store.merge_patch(comments, comment, BOB, {"body": "C"})
    assert not await readable(contract, comment)
    await contract.store.merge_patch(comments, comment, BOB, {"post_id": shown})
    assert await readable(contract, comment)
    await contract.store.replace(comments, comment, BOB, {"post_id": hidden, "body": "C"})
    assert not await readable(contract, comment)


@pytest.mark.parametrize("value", [False, True])
async def test_setting_the_copy_oneself(contract: World, value: bool) -> None:
    """Is refused to its author, for whom there is no such field, and to moderators, for whom it is read-only."""
    comment = await comment_on(contract, await post_of(contract))
    comments = contract.registry["comments"]
    for by, kind in ((BOB, "extra_forbidden"), (MODERATOR, "read_only")):
        with pytest.raises(DocumentRefused) as refused:
            await contract.store.merge_patch(comments, comment, by, {"post_hidden": value})
        assert [fault.type for fault in refused.value.faults] == [kind]


async def test_comment_whose_post_is_gone(contract: World) -> None:
    """Stays as it was; one on a post that never was is not for readers, as one on a draft."""
    post = await post_of(contract)
    comment = await comment_on(contract, post)
    await moderate(contract, "posts", post, "hidden")
    await contract.store.delete(contract.registry["posts"], post, MODERATOR)
    assert not await readable(contract, comment)
    assert not await readable(contract, await comment_on(contract, str(ObjectId())))
    draft = await post_of(contract, status="draft")
    comment = await comment_on(contract, draft)
    assert not await readable(contract, comment)
    await contract.store.merge_patch(contract.registry["posts"], draft, MODERATOR, {"status": "published"})
    assert await readable(contract, comment)


async def test_many_comments(world: World) -> None:
    """All are hidden together with their post, and one that breaks the rules does not keep the others from it."""
    post = await post_of(world)
    stored = {"body": "B", "status": "published", "author_id": BOB.user_id, "post_id": ObjectId(post)}
    collection = world.database.latest("comments")
    await collection.insert_many([{"_id": ObjectId(), **stored} for _ in range(1_000)])
    await collection.insert_one({**stored, "body": 7, "_id": ObjectId()}, bypass_document_validation=True)
    await moderate(world, "posts", post, "hidden")
    assert await collection.count_documents({"post_id": ObjectId(post), "post_hidden": True}) == 1_001
    await moderate(world, "posts", post, "published")
    assert await collection.count_documents({"post_id": ObjectId(post), "post_hidden": True}) == 0


async def test_failure_between_the_post_and_its_comments(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves both as they were: they are one transaction."""
    post = await post_of(world)
    comment = await comment_on(world, post)

    async def fail(*_: object) -> None:
        raise ConnectionError("the process ends here")

    with monkeypatch.context() as patched:
        patched.setattr(Derivations, "_set", fail)
        with pytest.raises(ConnectionError):
            await moderate(world, "posts", post, "hidden")
    found = await world.store.get(world.registry["posts"], post, ANONYMOUS)
    assert (found.document["status"], found.document["revision"]) == ("published", 1)
    assert await readable(world, comment)
    await moderate(world, "posts", post, "hidden")
    assert not await readable(world, comment)


async def test_moderating_while_comments_change(world: World) -> None:
    """Edits of comments meanwhile are not lost, and in the end all agree with the post."""
    post = await post_of(world)
    comments = [await comment_on(world, post) for _ in range(8)]
    resource = world.registry["comments"]

    async def edit(comment: str) -> None:
        for number in range(10):
            await world.store.merge_patch(resource, comment, BOB, {"body": f"edit {number}"})

    async def judge() -> None:
        for status in ("hidden", "published") * 3:
            await moderate(world, "posts", post, status)
        await moderate(world, "posts", post, "hidden")

    await asyncio.gather(judge(), *map(edit, comments))
    found = [await world.store.get(resource, comment, MODERATOR) for comment in comments]
    assert [one.document["body"] for one in found] == ["edit 9"] * 8
    assert [one.document["post_hidden"] for one in found] == [True] * 8


async def test_writes_by_others(contract: World) -> None:
    """A post that somebody hides in mongosh, a comment that mongosh writes on it, and one that was created at the very
    moment: what the feed reports of them is put right."""
    posts, comments = contract.database.latest("posts"), contract.database.latest("comments")
    post = await post_of(contract)
    comment = await comment_on(contract, post)
    before = await posts.find_one({"_id": ObjectId(post)})
    assert before is not None
    async with keeping(contract) as keeper:

        async def agreed(comment_id: str, hidden: bool) -> None:
            async def agrees() -> bool:
                return await readable(contract, comment_id) != hidden

            await until(agrees)

        after = before | {"status": "hidden"}
        await posts.replace_one({"_id": before["_id"]}, after)
        assert await readable(contract, comment)
        keeper.on_entry(change("posts", before, after))
        await agreed(comment, hidden=True)
        by_hand = {"_id": ObjectId(), "post_id": before["_id"], "body": "B", "author_id": BOB.user_id}
        by_hand["status"] = "published"
        await comments.insert_one(by_hand)
        late = by_hand | {"_id": ObjectId(), "post_hidden": False}
        await comments.insert_one(late)
        broken = by_hand | {"_id": ObjectId(), "post_id": {"not": "an id"}}
        for document in (broken, by_hand, late):
            keeper.on_entry(change("comments", None, document))
        await agreed(str(by_hand["_id"]), hidden=True)
        await agreed(str(late["_id"]), hidden=True)
        await posts.replace_one({"_id": before["_id"]}, before)
        keeper.on_entry(change("posts", after, before))
        for one in (comment, str(by_hand["_id"]), str(late["_id"])):
            await agreed(one, hidden=False)


async def test_copy_that_is_right(world: World) -> None:
    """Is not written again, so that a comment is one event and not two."""
    post = await post_of(world)
    comment = await comment_on(world, post)
    stored = await world.database.latest("comments").find_one({"_id": ObjectId(comment)})
    assert stored is not None
    by_hand = {name: value for name, value in stored.items() if name != "post_hidden"} | {"_id": ObjectId()}
    await world.database.latest("comments").insert_one(by_hand)
    (derivation,) = world.store.derivations.own["comments"]
    await world.store.derivations.settle(derivation, {one["_id"]: one for one in (stored, by_hand)})
    await world.store.derivations.settle_all(derivation, ObjectId(post))
    assert await world.database.latest("comments").find_one({"_id": by_hand["_id"]}) == by_hand


def test_derived_from_nothing() -> None:
    """A reference that is none, or to a class that is not served, is refused at the start."""

    class Orphan(LiveDocument):
        """Refers to nobody."""

        owner_id: Annotated[PydanticObjectId | None, References("users")] = None
        number: int = 0
        a: Annotated[bool, DerivedFrom("number", bool)] = False

        class Settings:
            name = "orphans"

    with pytest.raises(DeclarationError, match=r"Orphan\.a: 'number' must refer"):
        Store(MemoryDatabase("x"), Registry([Orphan, User]))
    with pytest.raises(DeclarationError, match=r"Comment\.post_hidden: 'post_id' must refer"):
        Store(MemoryDatabase("x"), Registry([Comment, User]))
    assert Store(MemoryDatabase("x"), Registry([Comment, Post])).derivations.carried.keys() == {"posts"}
