"""An operator patch makes of a document what MongoDB's own update makes of it, or both refuse.

Left out is what Headwater refuses on purpose (decimals that would have to be rounded, integers beyond ±(2^53-1),
indexes far beyond an array's end, objects compared as a whole in `$pull`); and `$pull` on a path that leads through a
scalar, which MongoDB refuses and the embedded server passes by.
"""

from __future__ import annotations

import datetime as dt
import os
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pymongo
import pytest
from bson import Decimal128, Int64, ObjectId
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.collection import Collection
from pymongo.errors import WriteError

from documents import DocumentRefused, PublicForm, Registry, forms_of
from documents.editing import Editor
from documents.operators import OperatorPatch
from tests.documents.classes import Specimen

pytestmark = pytest.mark.property

Document = dict[str, Any]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "250"))

RESOURCE = Registry([Specimen])["specimens"]
NOBODY: frozenset[str] = frozenset()
EDITOR = Editor(
    RESOURCE.visible(NOBODY),
    RESOURCE.writable(NOBODY),
    PublicForm(RESOURCE.visible(NOBODY)),
    forms_of(RESOURCE).update,
)

names = st.sampled_from(["a", "b", "0", "1"])
scalars = st.sampled_from([0, 1, -2, 1.5, 0.0, 2**40, "", "a", "b", True, False, None])
operands = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
stored_scalars = scalars | st.sampled_from(
    [Decimal128("1.50"), Decimal128("1"), Int64(1), ObjectId("65f0" * 6), dt.datetime(2024, 5, 1, tzinfo=dt.UTC)]
)
stored = st.recursive(
    stored_scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
paths = st.sampled_from(["a", "b", "a.a", "a.b", "a.0", "a.1", "a.3", "b.a", "b.0.a", "a.1.b", "b.1", "a.a.a"])
numbers = st.sampled_from([0, 1, -3, 2.5, -0.5, 7])
bounds = st.sampled_from([0, 1, 2, -1, 1.5, "a", "b", True, False])
each = st.lists(operands, max_size=3)
push = operands.filter(lambda value: not isinstance(value, dict)) | st.fixed_dictionaries(
    {"$each": each}, optional={"$position": st.integers(-3, 4), "$slice": st.integers(-3, 4)}
)
add = operands.filter(lambda value: not isinstance(value, dict)) | st.fixed_dictionaries({"$each": each})
conditions = st.one_of(
    scalars,
    st.lists(scalars, max_size=2),
    st.fixed_dictionaries({"$in": st.lists(scalars.filter(lambda value: value is not None), max_size=3)}),
    st.sampled_from([{"$gte": 1}, {"$lt": "b"}, {"$ne": 1}, {"$exists": True}, {}, {"a": 1}, {"a": {"$gt": 0}}]),
)
OPERANDS: dict[str, st.SearchStrategy[Any]] = {
    "$set": operands,
    "$unset": st.just(""),
    "$inc": numbers,
    "$mul": numbers,
    "$min": bounds,
    "$max": bounds,
    "$push": push,
    "$addToSet": add,
    "$pull": conditions,
}
updates = st.dictionaries(st.sampled_from(list(OPERANDS)), st.none(), min_size=1, max_size=3).flatmap(
    lambda chosen: st.fixed_dictionaries(
        {operator: st.dictionaries(paths, OPERANDS[operator], min_size=1, max_size=2) for operator in chosen}
    )
)


@pytest.fixture(scope="module")
def collection(mongodb_url: str) -> Iterator[Collection[Document]]:
    """A collection without a validator."""
    with pymongo.MongoClient[Document](mongodb_url, tz_aware=True) as client:
        name = f"operators_{uuid.uuid4().hex[:8]}"
        yield client[name]["documents"]
        client.drop_database(name)


def by_database(collection: Collection[Document], held: Any, update: Document) -> Any:
    """What the database makes of it; the exception where it refuses."""
    collection.replace_one({"_id": 1}, {"anything": held}, upsert=True)
    try:
        collection.update_one(
            {"_id": 1},
            {
                operator: {f"anything.{path}": v for path, v in operands.items()}
                for operator, operands in update.items()
            },
        )
    except WriteError as error:
        return error
    document = collection.find_one({"_id": 1})
    assert document is not None
    return document["anything"]


def by_patch(held: Any, update: Document) -> Any:
    """What the patch makes of it; the exception where it refuses."""
    content = {
        operator: {f"anything.{path}": value for path, value in operands.items()}
        for operator, operands in update.items()
    }
    try:
        return OperatorPatch(EDITOR, content).apply({"_id": 1, "anything": held})["anything"]
    except DocumentRefused as refused:
        return refused


def comparable(value: Any) -> Any:
    """A value in which 1, 1.0 and true differ, and decimals are of one class."""
    if isinstance(value, Decimal128 | Decimal):
        return ("decimal", str(value))
    if isinstance(value, dict):
        return {name: comparable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    return (int if isinstance(value, Int64) else type(value), value)


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(held=st.dictionaries(names, stored, max_size=3), update=updates)
def test_the_database_makes_the_same(collection: Collection[Document], held: Document, update: Document) -> None:
    """The same values of the same types, or a refusal by both."""
    theirs, ours = by_database(collection, held, update), by_patch(held, update)
    if isinstance(ours, DocumentRefused) and all(f.loc[1] == "$pull" and f.type == "path" for f in ours.faults):
        return
    if isinstance(theirs, WriteError) or isinstance(ours, DocumentRefused):
        assert isinstance(theirs, WriteError), (theirs, ours)
        assert isinstance(ours, DocumentRefused), (theirs, ours)
    else:
        assert comparable(ours) == comparable(theirs)
