"""Walks over long lists: nothing is missed and nothing comes twice while others write, and no page costs more."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from typing import Any

import pytest
from bson import ObjectId
from pymongo import IndexModel

from documents import ListQuery, Page, Sort, parse_sort
from tests.documents.classes import ANN, World

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


async def test_cost_of_the_last_page(world: World) -> None:
    """It is that of the first one, where an index has the order. (With `page` it would be that of all before.)"""
    count, limit = 1_000, 20
    await fill(world, count)
    sort = parse_sort(["score"], world.registry["notes"].fields)
    cursor: str | None = None
    last: str | None = None
    while (found := await page(world, sort, cursor, 90)).next_cursor is not None:
        last, cursor = cursor, found.next_cursor
    assert last is not None

    async def seconds(at: str | None) -> float:
        started = time.perf_counter()
        assert len((await page(world, sort, at, limit)).items) == limit
        return time.perf_counter() - started

    # In turns, so that whatever else the machine does falls on both; the least is what the page itself costs.
    pairs = [(await seconds(None), await seconds(last)) for _ in range(6)]
    first_costs, last_costs = zip(*pairs, strict=True)
    assert min(last_costs) < 4 * min(first_costs) + 0.02
