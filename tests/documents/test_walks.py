"""Walks over long lists: nothing is missed and nothing comes twice while others write, and no page costs more."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from typing import Any

import pytest
from bson import ObjectId
from pymongo import IndexModel

from documents import ListQuery, Page, Sort, parse_sort
from tests.documents.classes import ANN, World
from tests.documents.commands import Finds

PAGE = 500
SCORES = 40


async def fill(world: World, count: int) -> list[ObjectId]:
    """Notes with few different scores, so that most places in the order are decided by the id; and an index for it."""
    notes = world.database.raw["notes"]
    await world.database.raw.command({"collMod": "notes", "validationLevel": "off"})
    await notes.create_indexes([IndexModel([("score", 1), ("_id", 1)], name="score_id")])
    ids = [ObjectId() for _ in range(count)]
    for start in range(0, count, 1_000):
        await notes.insert_many(
            [note(id_, number) for number, id_ in enumerate(ids[start : start + 1_000])], ordered=False
        )
    return ids


def note(id_: ObjectId, number: int) -> dict[str, Any]:
    """A small note."""
    return {"_id": id_, "title": "t", "hush": str(id_), "score": number % SCORES}


async def page(world: World, sort: Sort, cursor: str | None, limit: int = PAGE) -> Page:
    return await world.lists.page(world.registry["notes"], ListQuery(sort=sort, limit=limit, cursor=cursor), ANN)


async def test_walk_while_others_insert_and_delete(world: World, request: pytest.FixtureRequest) -> None:
    """Each document that is there from the beginning to the end comes exactly once, any other at most once."""
    ids = await fill(world, request.config.getoption("--walk-documents"))
    notes = world.database.raw["notes"]
    deleted: set[str] = set()
    inserted = 0

    async def write() -> None:
        nonlocal inserted
        # From both ends and the middle: before and behind the place where the walk is.
        places = itertools.cycle((0, len(ids) // 2, len(ids) - 1))
        for number in range(len(ids) // 3):
            victim = ids[(next(places) + (number if number % 3 < 2 else -number)) % len(ids)]
            deleted.add(str(victim))
            await notes.delete_one({"_id": victim})
            await notes.insert_one(note(ObjectId(), number))
            inserted += 1

    sort = parse_sort(["-score"], world.registry["notes"].fields)
    writing = asyncio.create_task(write())
    seen: Counter[str] = Counter()
    cursor: str | None = None
    while True:
        found = await page(world, sort, cursor)
        seen.update(item.document["id"] for item in found.items)
        if (cursor := found.next_cursor) is None:
            break
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert inserted >= 10
    survivors = {str(id_) for id_ in ids} - deleted
    assert {id_ for id_, times in seen.items() if times > 1} == set()
    assert survivors - seen.keys() == set()


async def test_what_the_last_page_asks_for(finds: Finds, world: World) -> None:
    """One query as that of the first one, in the order of the index and no longer; with `page`, all before is passed.

    (That no more is read for it either, the next two tests show.)
    """
    limit = 20
    await fill(world, 400)
    sort = parse_sort(["score"], world.registry["notes"].fields)
    cursor: str | None = None
    last: str | None = None
    while (found := await page(world, sort, cursor, 90)).next_cursor is not None:
        last, cursor = cursor, found.next_cursor
    assert last is not None
    finds.listens = True
    for at in (None, last):
        assert len((await page(world, sort, at, limit)).items) == limit
    await world.lists.page(world.registry["notes"], ListQuery(sort=sort, limit=limit, page=20), ANN)
    asked = [(dict(find["sort"]), find["limit"], find.get("skip", 0)) for find in finds.sent]
    in_order = {"score": 1, "_id": 1}
    assert asked == [(in_order, limit + 1, 0), (in_order, limit + 1, 0), (in_order, limit + 1, 380)]


def bounds(condition: Any) -> Any:
    """What of a query an index is searched by: all but what is only looked at in what was found."""
    if isinstance(condition, dict):
        return {name: bounds(inner) for name, inner in condition.items() if name not in ("$nor", "$elemMatch")}
    if isinstance(condition, list):
        return [kept for inner in condition if (kept := bounds(inner)) != {}]
    return condition


def ranges(condition: dict[str, Any]) -> list[list[tuple[str, str]]]:
    """The alternatives of a cursor's condition, each as its paths and operators."""
    return [
        [(path, operator) for one in branch["$and"] for path, test in one.items() for operator in test]
        for branch in bounds(condition)["$or"]
    ]


@pytest.mark.parametrize("order", ["score", "-score", "-score,created_at", "created_at,-score"])
async def test_search_for_a_page(world: World, order: str) -> None:
    """What an index is searched by leads to the cursor's place: nothing before it is found, so no page costs more.

    (The embedded server plans otherwise; what a MongoDB does of it is the next test.)
    """
    notes = world.database.raw["notes"]
    await fill(world, 400)
    for number, score in enumerate([None, 2.5, "2", True, {"a": 1}, ObjectId()]):
        await notes.insert_one({**note(ObjectId(), number), "score": score})
    resource, sort = world.registry["notes"], parse_sort(order.split(","), world.registry["notes"].fields)
    everything = [n["_id"] async for n in notes.find().sort([(k.path, -1 if k.descending else 1) for k in sort])]
    paths, cursor, passed = [key.path for key in sort], None, 0
    while True:
        query = ListQuery(sort=sort, limit=90, cursor=cursor)
        if cursor is not None:
            condition = world.lists.condition(resource, query, ANN)
            for branch in ranges(condition):
                named = [path for path, _ in branch]
                assert named == paths[: len(named)], "each key of the index up to the last one, in their order"
                assert {operator for _, operator in branch[:-1]} <= {"$eq"}
                assert branch[-1][1] in ("$eq", "$gt", "$gte", "$lt", "$lte", "$type")
            found = [n["_id"] async for n in notes.find(bounds(condition))]
            assert set(found) == set(everything[passed:])
        page_ = await world.lists.page(resource, query, ANN)
        passed += len(page_.items)
        if (cursor := page_.next_cursor) is None:
            break
    assert passed == len(everything)


@pytest.mark.skipif(
    "HEADWATER_TEST_MONGODB_URL" not in os.environ, reason="the embedded server's plans are not MongoDB's"
)
async def test_plan_of_a_page(world: World) -> None:
    """MongoDB reads about as many keys of the index as the page has documents, on the first page as on the last."""
    limit = 20
    await fill(world, 2_000)
    resource, sort = world.registry["notes"], parse_sort(["score"], world.registry["notes"].fields)
    cursor: str | None = None
    pages: list[str | None] = []
    while True:
        pages.append(cursor)
        if (cursor := (await page(world, sort, cursor, 100)).next_cursor) is None:
            break
    for at in (pages[0], pages[len(pages) // 2], pages[-1]):
        query = ListQuery(sort=sort, limit=limit, cursor=at)
        finding = {
            "find": "notes",
            "filter": world.lists.condition(resource, query, ANN),
            "sort": {key.path: -1 if key.descending else 1 for key in sort},
            "limit": limit + 1,
        }
        plan = await world.database.raw.command({"explain": finding, "verbosity": "executionStats"})
        # A few more: each alternative is read one ahead, and each type of values that may follow is looked for.
        assert plan["executionStats"]["totalKeysExamined"] <= limit + 1 + 40
