"""What the server adds to a client's values: bookkeeping that somebody left out or broke."""

from __future__ import annotations

import datetime as dt
from typing import Any

from bson import ObjectId

from tests.documents.classes import ANN, World


async def counter(world: World, **fields: Any) -> str:
    """A counter as a person may have written it."""
    made = await world.database.raw["counters"].insert_one(fields, bypass_document_validation=True)
    return str(made.inserted_id)


async def test_time_of_creation_comes_from_the_id(world: World) -> None:
    """Which a program made when it wrote the document, however long ago that was."""
    moment = dt.datetime(2020, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    id_text = await counter(world, _id=ObjectId.from_datetime(moment))
    patched = await world.store.merge_patch(world.registry["counters"], id_text, ANN, {"by_api": 1})
    assert patched.document["created_at"] == "2020-02-03T04:05:06.000Z"


async def test_author_that_is_none(world: World) -> None:
    """It is put right by a write that changes nothing else."""
    then = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    id_text = await counter(world, by_api=1, by_hand=0, created_at=then, updated_at=then, updated_by=7, revision=1)
    patched = await world.store.merge_patch(world.registry["counters"], id_text, ANN, {"by_api": 1})
    assert (patched.changed, patched.document["updated_by"]) == (True, ANN.author)
