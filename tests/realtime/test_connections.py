"""How a connection waits for its client."""

from __future__ import annotations

import asyncio

from realtime.frames import Frame
from tests.realtime.worker import connected, working


async def test_cancellation_that_comes_with_new_room(mongodb_url: str, database_name: str) -> None:
    """A reset makes room and cancels who waits for it: they end, whichever turn of the loop it meets."""
    async with working(mongodb_url, database_name) as worker, connected(worker) as client:
        outbox = client.connection.outbox
        client.pause()
        assert outbox.put_control(Frame("x", "problem"))
        await client.stuck()
        waited = True
        turns = 0
        while waited:
            assert outbox.put(Frame("x" * 100, "update", "v"))
            waiting = asyncio.create_task(client.connection.room(1))
            # Far more turns than it takes to get there.
            for _ in range(10):
                await asyncio.sleep(0)
            assert not waiting.done()
            outbox.drop_view("v")
            for _ in range(turns):
                await asyncio.sleep(0)
            if waited := not waiting.done():
                waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled() is waited, f"cancelled after {turns} turns"
            turns += 1
        assert turns > 1
