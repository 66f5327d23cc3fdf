"""Writing all that match, while others write."""

from __future__ import annotations

from typing import Any

import pytest
from bson import ObjectId

from documents import (
    DatabaseAway,
    FilterRefused,
    InvalidInput,
    PatchKind,
    Selection,
    Store,
    TooManyMatch,
    parse_filter,
)
from tests.documents.classes import ANN, World
from tests.documents.test_contention import Interrupted


async def test_what_no_longer_matches_is_passed_by(world: World) -> None:
    """Between the search and the write somebody changes the document: it is neither modified nor failed."""
    counters, raw = world.registry["counters"], world.database.raw.counters
    id_text = (await world.store.create(counters, ANN, {"by_api": 1})).document["id"]

    async def by_hand() -> None:
        await raw.update_one({"_id": ObjectId(id_text)}, {"$set": {"by_api": 5}})

    filter = parse_filter({"by_api": 1}, counters.fields)
    selection = Selection(Store(Interrupted.of(world.database, 1, by_hand), world.registry))
    patch = world.store.prepare(counters, ANN, PatchKind.OPERATORS, {"$inc": {"by_api": 10}})
    selected = await selection.update(counters, ANN, filter, patch)
    assert (selected.matched, selected.modified, selected.failures) == (1, 0, 0)
    await raw.update_one({"_id": ObjectId(id_text)}, {"$set": {"by_api": 1}})
    selection = Selection(Store(Interrupted.of(world.database, 1, by_hand), world.registry))
    selected = await selection.delete(counters, ANN, filter)
    assert (selected.matched, selected.modified, selected.failures) == (1, 0, 0)
    assert (await world.store.get(counters, id_text, ANN)).document["by_api"] == 5


async def test_a_filter_that_excludes_nothing(world: World) -> None:
    """Is none, however it is written."""
    counters = world.registry["counters"]
    empties: list[dict[str, Any]] = [{}, {"$and": [{}]}, {"$or": [{"by_api": 1}, {}]}]
    for empty in empties:
        with pytest.raises(InvalidInput) as refused:
            await Selection(world.store).delete(counters, ANN, parse_filter(empty, counters.fields))
        assert not isinstance(refused.value, FilterRefused)


async def test_more_than_one_request_may_change(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is refused, and nothing is changed; as many as it may are changed."""
    counters = world.registry["counters"]
    for _ in range(4):
        await world.store.create(counters, ANN, {"by_api": 1})
    patch = world.store.prepare(counters, ANN, PatchKind.OPERATORS, {"$inc": {"by_hand": 1}})
    selection, filter = Selection(world.store), parse_filter({"by_api": 1}, counters.fields)
    monkeypatch.setattr("documents.selection.MAX_DOCUMENTS", 3)
    with pytest.raises(TooManyMatch):
        await selection.update(counters, ANN, filter, patch)
    with pytest.raises(TooManyMatch):
        await selection.delete(counters, ANN, filter)
    assert await world.database.raw.counters.count_documents({"by_hand": 0}) == 4
    monkeypatch.setattr("documents.selection.MAX_DOCUMENTS", 4)
    assert (await selection.update(counters, ANN, filter, patch)).modified == 4


async def test_a_database_that_goes_away_ends_the_request(world: World) -> None:
    """What is left is not tried, and counted as failed."""
    counters = world.registry["counters"]
    for _ in range(12):
        await world.store.create(counters, ANN, {"by_api": 1})

    async def gone() -> None:
        raise DatabaseAway("gone")

    selection = Selection(Store(Interrupted.of(world.database, 1_000, gone), world.registry))
    patch = world.store.prepare(counters, ANN, PatchKind.OPERATORS, {"$inc": {"by_hand": 1}})
    selected = await selection.update(counters, ANN, parse_filter({"by_api": 1}, counters.fields), patch)
    assert (selected.matched, selected.modified, selected.failures, len(selected.failed)) == (12, 0, 12, 12)
