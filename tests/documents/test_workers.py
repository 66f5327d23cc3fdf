"""Orders that one worker gives to all: nothing of them stays behind, whatever happens to who gave them."""

from __future__ import annotations

import asyncio

from documents.workers import ORDERS, REPLIES, Workers
from tests.documents.classes import World


async def test_giver_who_is_cancelled(world: World) -> None:
    """At whatever moment: the order is given and told of, or there is none."""
    workers = Workers(world.database)
    cancelled = 0
    for turns in range(12):
        giving = asyncio.create_task(workers.give("refresh", {}))
        for _ in range(turns):
            await asyncio.sleep(0)
        giving.cancel()
        try:
            await workers.withdraw(await giving)
        except asyncio.CancelledError:
            cancelled += 1
        assert await world.database.latest(ORDERS).count_documents({}) == 0
    assert cancelled


async def test_answer_that_comes_too_late(world: World) -> None:
    """It is taken back; one that comes in time is there until the order is withdrawn."""
    workers = Workers(world.database)
    order = await workers.give("refresh", {})
    await workers.reply(order, "one", {"n": 1})
    assert await workers.replies(order, ["one"]) == {"one": {"n": 1}}
    await workers.withdraw(order)
    await workers.reply(order, "two", {"n": 2})
    assert await world.database.latest(REPLIES).count_documents({}) == 0
