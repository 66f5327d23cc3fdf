"""Fifty clients write one document in every way there is, and somebody in the database too: no update is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from bson import ObjectId

from documents import (
    Bulk,
    Found,
    Inapplicable,
    Operation,
    PatchKind,
    Preconditions,
    Stale,
    Store,
    Verb,
    open_database,
)
from tests.documents.classes import ANN, World

CLIENTS = 50
#: How often each client counts; set CONTENTION_ROUNDS for a longer run.
ROUNDS = int(os.environ.get("CONTENTION_ROUNDS", "3"))


async def test_fifty_clients_lose_no_update(world: World, mongodb_url: str, database_name: str) -> None:
    """A counter adds up exactly and the revision counts the API's writes, over two processes' worth of writers."""
    counters = world.registry["counters"]
    id_text = str((await world.store.create(counters, ANN, {})).document["id"])
    second = await open_database(mongodb_url, database_name)
    revisions: list[int] = []

    async def apply(store: Store, kind: PatchKind, content: Any, tag: str | None = None) -> None:
        conditions = Preconditions(if_match=None if tag is None else (tag,))
        patch = store.prepare(counters, ANN, kind, content)
        found = await store.patch(counters, id_text, ANN, patch, conditions)
        revisions.append(found.document["revision"])

    async def by_operator(store: Store) -> None:
        await apply(store, PatchKind.OPERATORS, {"$inc": {"by_api": 1}})

    async def by_merge(store: Store) -> None:
        seen = await store.get(counters, id_text, ANN)
        await apply(store, PatchKind.MERGE, {"by_api": seen.document["by_api"] + 1}, seen.etag)

    async def by_json_patch(store: Store) -> None:
        value = (await store.get(counters, id_text, ANN)).document["by_api"]
        testing = {"op": "test", "path": "/by_api", "value": value}
        await apply(store, PatchKind.JSON, [testing, {"op": "replace", "path": "/by_api", "value": value + 1}])

    async def by_replacement(store: Store) -> None:
        seen = await store.get(counters, id_text, ANN)
        content = {"by_api": seen.document["by_api"] + 1, "by_hand": seen.document["by_hand"]}
        found, _ = await store.replace(counters, id_text, ANN, content, Preconditions(if_match=(seen.etag,)))
        revisions.append(found.document["revision"])

    async def by_transaction(store: Store) -> None:
        counting = Operation(Verb.UPDATE, id_text, {"$inc": {"by_api": 1}})
        [outcome] = await Bulk(store).atomic(counters, ANN, [counting])
        assert isinstance(outcome, Found)
        revisions.append(outcome.document["revision"])

    async def by_hand(_store: Store) -> None:
        await world.database.raw.counters.update_one({"_id": ObjectId(id_text)}, {"$inc": {"by_hand": 1}})

    ways: list[Callable[[Store], Awaitable[None]]] = [
        *(by_operator, by_merge, by_json_patch, by_replacement, by_hand),
        *(by_operator, by_operator, by_transaction, by_operator, by_hand),
    ]

    async def client(number: int, store: Store) -> None:
        done = 0
        while done < ROUNDS:
            try:
                await ways[number % len(ways)](store)
            except (Stale, Inapplicable):
                # Somebody was faster. Who reads first and writes then has to begin again.
                continue
            done += 1

    try:
        stores = [world.store, Store(second, world.registry)]
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(number, stores[number // len(ways) % 2]))
    finally:
        await second.close()
    after = (await world.store.get(counters, id_text, ANN)).document
    direct = CLIENTS // len(ways) * ways.count(by_hand) * ROUNDS
    counted = CLIENTS * ROUNDS - direct
    assert (after["by_api"], after["by_hand"]) == (counted, direct)
    assert after["revision"] == counted + 1
    assert sorted(revisions) == list(range(2, counted + 2))
