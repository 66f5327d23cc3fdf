"""How long live views pause when the relay dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import time

from bson import ObjectId
from websockets.asyncio.client import ClientConnection, connect

from tests.chaos.site import Site, Worker
from tests.chaos.writers import now

PATIENCE_SECONDS = 30


async def failover(site: Site, relay: Worker) -> float:
    """Kill the relay, and return after how many seconds clients of all other workers have a change made after that."""
    others = [worker for worker in site.workers if worker is not relay and worker.runs]
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(PATIENCE_SECONDS):
        sockets = [await stack.enter_async_context(_connection(worker)) for worker in others]
        word = secrets.token_hex(8)
        for socket in sockets:
            query = {"resource": "posts", "filter": {"tags": word}, "snapshot": False}
            await socket.send(json.dumps({"type": "subscribe", "id": "1", **query}))
            await _until(socket, "ready")
        relay.send(signal.SIGKILL)
        began = time.monotonic()
        await site.end_transactions()
        post = {"title": "After the relay", "slug": word, "body": "", "tags": [word], "status": "published"}
        book = {"author_id": ObjectId(), "revision": 1, "created_at": now(), "updated_at": now()}
        id = (await site.db["posts"].insert_one(post | book)).inserted_id
        await asyncio.gather(*(_until(socket, "event") for socket in sockets))
        took = time.monotonic() - began
        await site.db["posts"].delete_one({"_id": id})
        return took


def _connection(worker: Worker) -> connect:
    return connect(
        f"ws://127.0.0.1:{worker.port}/api/v1/ws",
        subprotocols=["headwater.v1"],  # type: ignore[list-item]  # a NewType of str
        proxy=None,
        close_timeout=0.5,
    )


async def _until(socket: ClientConnection, type: str) -> None:
    while json.loads(await socket.recv())["type"] != type:
        pass
