"""Many writes in one request, in transactions and without, while others write."""

from __future__ import annotations

import datetime as dt

import pytest
from bson import ObjectId

from documents import (
    Bulk,
    Contended,
    DatabaseAway,
    Found,
    InvalidInput,
    Operation,
    Store,
    Verb,
)
from tests.documents.classes import ANN, World
from tests.documents.test_contention import Interrupted


async def test_a_bulk_request_of_an_away_database(world: World) -> None:
    """The operation that met it and all after it are answered, in order, and not tried."""
    counters = world.registry["counters"]
    id_text = (await world.store.create(counters, ANN, {})).document["id"]
    tried = 0

    async def gone() -> None:
        nonlocal tried
        tried += 1
        raise DatabaseAway("gone")

    bulk = Bulk(Store(Interrupted.of(world.database, 1_000, gone), world.registry))
    operations = [Operation(Verb.CREATE, None, {}), *[Operation(Verb.DELETE, id_text)] * 3]
    outcomes = [outcome async for outcome in bulk.each(counters, ANN, operations)]
    assert isinstance(outcomes[0], Found)
    assert all(isinstance(outcome, DatabaseAway) for outcome in outcomes[1:])
    assert tried == 1


async def test_a_database_without_transactions(memory: World) -> None:
    """Says so."""
    with pytest.raises(InvalidInput) as refused:
        await Bulk(memory.store).atomic(memory.registry["counters"], ANN, [Operation(Verb.CREATE, None, {})])
    assert refused.value.faults[0].loc == ("body", "atomic")


async def test_a_transaction_that_another_program_disturbs(world: World) -> None:
    """Is made again as a whole, on what the other program left."""
    counters, raw = world.registry["counters"], world.database.raw.counters
    id_text = (await world.store.create(counters, ANN, {})).document["id"]

    async def by_hand() -> None:
        await raw.update_one({"_id": ObjectId(id_text)}, {"$inc": {"by_hand": 1}})

    disturbed = Interrupted.of(world.database, 1, by_hand)
    counting = Operation(Verb.UPDATE, id_text, {"$inc": {"by_api": 1}})
    [*_, last] = await Bulk(Store(disturbed, world.registry)).atomic(counters, ANN, [counting, counting])
    assert isinstance(last, Found)
    stored = await raw.find_one({"_id": ObjectId(id_text)})
    assert stored is not None
    assert (stored["by_api"], stored["by_hand"], stored["revision"]) == (2, 1, 3)


async def test_a_transaction_keeps_fields_that_are_not_declared(world: World) -> None:
    """As a single write does, also where the validator would refuse them."""
    counters, raw = world.registry["counters"], world.database.raw.counters
    id_text = (await world.store.create(counters, ANN, {})).document["id"]
    await world.database.raw.command("collMod", "counters", validationLevel="off")
    await raw.update_one({"_id": ObjectId(id_text)}, {"$set": {"extra": 1}})
    await world.database.raw.command("collMod", "counters", validationLevel="strict")
    counting = Operation(Verb.UPDATE, id_text, {"$inc": {"by_api": 1}})
    await Bulk(world.store).atomic(counters, ANN, [counting, counting])
    stored = await raw.find_one({"_id": ObjectId(id_text)})
    assert stored is not None
    assert (stored["by_api"], stored["revision"], stored.get("extra")) == (2, 3, 1)


async def test_a_transaction_that_never_succeeds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends, and leaves nothing of itself."""
    monkeypatch.setattr("documents.contention.CONTENTION_TIMEOUT", dt.timedelta(milliseconds=100))
    counters, raw = world.registry["counters"], world.database.raw.counters
    id_text = (await world.store.create(counters, ANN, {})).document["id"]

    async def by_hand() -> None:
        await raw.update_one({"_id": ObjectId(id_text)}, {"$inc": {"by_hand": 1}})

    bulk = Bulk(Store(Interrupted.of(world.database, 1_000_000, by_hand), world.registry))
    operations = [Operation(Verb.CREATE, None, {}), Operation(Verb.UPDATE, id_text, {"by_api": 1})]
    with pytest.raises(Contended):
        await bulk.atomic(counters, ANN, operations)
    assert await raw.count_documents({}) == 1
    assert (await world.store.get(counters, id_text, ANN)).document["by_api"] == 0
