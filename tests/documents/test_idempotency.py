"""Claims of idempotency keys: one holder at a time, an answer for the others, and what is left of a dead holder."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable

import pytest
from bson import ObjectId

from documents import ANONYMOUS, Claim, Claims, InvalidInput, KeptAnswer, KeyHeld, Principal, repeatable_ids
from documents.idempotency import COLLECTION, HELD, MAX_ANSWER_BYTES
from tests.documents.classes import World

ANSWER = KeptAnswer(207, {"Content-Type": "application/json"}, b"{}", "user | *")


@pytest.fixture
async def claims(contract: World) -> Claims:
    """The claims of a database."""
    claims = Claims(contract.database, contract.registry)
    await claims.install()
    await claims.install()
    return claims


async def claimed(claims: Claims, *, repeatable: bool = False, fingerprint: str = "f") -> Claim:
    """A claim that is made, or taken over."""
    claim = await claims.claim("id", fingerprint, "allotted", repeatable=repeatable)
    assert isinstance(claim, Claim)
    return claim


async def let_pass(world: World, time: dt.timedelta) -> None:
    """Make the claim older than it is."""
    collection = world.database.latest(COLLECTION)
    stored = await collection.find_one({"_id": "id"})
    assert stored is not None
    await collection.update_one({"_id": "id"}, {"$set": {"claimed_at": stored["claimed_at"] - time}})


async def test_claims_at_once(claims: Claims) -> None:
    """One of them holds the key; the others are told for how long at most."""
    outcomes = await asyncio.gather(
        *(claims.claim("id", "f", number, repeatable=True) for number in range(10)), return_exceptions=True
    )
    (held,) = (outcome for outcome in outcomes if isinstance(outcome, Claim))
    assert held.attempt == 1
    for outcome in outcomes:
        if outcome is not held:
            assert isinstance(outcome, KeyHeld)
            assert outcome.left is not None
            assert dt.timedelta(0) < outcome.left <= HELD


async def test_another_content(claims: Claims) -> None:
    """Is refused whatever has become of the first request."""
    claim = await claimed(claims)
    for _ in range(2):
        with pytest.raises(InvalidInput, match="another body"):
            await claims.claim("id", "other", None, repeatable=True)
        await claims.finish(claim, ANSWER)


async def test_answer(claims: Claims) -> None:
    """Is given to everybody who claims the key from then on."""
    await claims.finish(await claimed(claims), ANSWER)
    kept = await claims.claim("id", "f", "other", repeatable=True)
    assert isinstance(kept, KeptAnswer)
    assert (kept.status, kept.headers, kept.body) == (ANSWER.status, ANSWER.headers, ANSWER.body)
    assert kept.document_id == "allotted"


@pytest.mark.parametrize("size", [MAX_ANSWER_BYTES, MAX_ANSWER_BYTES + 1])
async def test_large_answer(claims: Claims, size: int) -> None:
    """Is kept up to a limit; past it, only that there was one."""
    await claims.finish(await claimed(claims), KeptAnswer(200, {}, b"x" * size, ""))
    kept = await claims.claim("id", "f", None, repeatable=True)
    assert isinstance(kept, KeptAnswer)
    assert (kept.body is None) == (size > MAX_ANSWER_BYTES)


async def test_dead_holder(claims: Claims, contract: World) -> None:
    """What may be repeated is taken over, under the same document id; the dead one's late answer counts for nothing."""
    dead = await claimed(claims)
    await let_pass(contract, HELD)
    heir = await claimed(claims, repeatable=True)
    assert (heir.attempt, heir.document_id) == (2, "allotted")
    await claims.finish(dead, ANSWER)
    with pytest.raises(KeyHeld):
        await claims.claim("id", "f", None, repeatable=True)
    await claims.finish(heir, ANSWER)
    assert isinstance(await claims.claim("id", "f", None, repeatable=True), KeptAnswer)


async def test_dead_holder_of_what_may_not_be_repeated(claims: Claims, contract: World) -> None:
    """Nobody takes over: it may have been carried out. Only its own late answer helps."""
    dead = await claimed(claims)
    await let_pass(contract, HELD)
    with pytest.raises(KeyHeld) as held:
        await claims.claim("id", "f", None, repeatable=False)
    assert held.value.left is None
    await claims.finish(dead, ANSWER)
    assert isinstance(await claims.claim("id", "f", None, repeatable=False), KeptAnswer)


async def test_release(claims: Claims) -> None:
    """One that changed nothing is forgotten; one that may have written keeps its id, also when it is refused later."""
    await claims.release(await claimed(claims), forget=True)
    first = await claimed(claims, fingerprint="other")
    assert first.attempt == 1
    await claims.release(first, forget=False)
    second = await claimed(claims, fingerprint="other")
    assert (second.attempt, second.document_id) == (2, first.document_id)
    await claims.release(second, forget=True)
    third = await claimed(claims, fingerprint="other")
    assert (third.attempt, third.document_id) == (3, first.document_id)


async def test_readable(claims: Claims, contract: World) -> None:
    """All documents that an answer shows must be there, and open to the caller."""
    author = Principal(ObjectId(), "author", frozenset({"user"}))
    posts = contract.registry["posts"]
    ids = []
    for status in ("published", "draft"):
        found = await contract.store.create(posts, author, {"title": "x", "status": status})
        ids.append(("posts", ObjectId(found.document["id"])))
    assert await claims.readable(ids, author)
    assert await claims.readable([*ids, *ids], author)
    assert await claims.readable([], ANONYMOUS)
    assert await claims.readable(ids[:1], ANONYMOUS)
    assert not await claims.readable(ids, ANONYMOUS)
    assert not await claims.readable([*ids, ("posts", ObjectId())], author)
    assert not await claims.readable([("nothing", ObjectId())], author)


async def test_seed(claims: Claims) -> None:
    """Is the same for all who ask for it, at once or later."""
    seeds = await asyncio.gather(*(claims.seed("id") for _ in range(5)))
    assert {*seeds, await claims.seed("id")} == {seeds[0]}
    assert await claims.seed("other") != seeds[0]


def test_repeatable_ids(memory: World) -> None:
    """Follow from seed, line and content, and are in the order of the lines."""
    posts, seed = memory.registry["posts"], ObjectId()

    def ids(seed: ObjectId) -> Callable[[int, bytes], ObjectId]:
        made = repeatable_ids(posts, seed)
        assert made is not None
        return made

    assert ids(seed)(1, b"a") == ids(seed)(1, b"a")
    others = {ids(seed)(1, b"a"), ids(seed)(2, b"a"), ids(seed)(1, b"b"), ids(ObjectId())(1, b"a")}
    assert len(others) == 4
    in_order = [ids(seed)(line, b"x") for line in (1, 2, 255, 256, 65_536)]
    assert in_order == sorted(in_order)
