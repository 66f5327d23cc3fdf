"""Images computed from what a real server reports of random updates."""

from __future__ import annotations

import uuid
from typing import Any

from bson import Int64
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from documents.images import apply_update
from tests.documents.changes.streams import (
    Server,
)

names = st.sampled_from(["a", "b", "c", "0", "1"])
scalars = st.one_of(st.integers(-5, 5), st.text("xy", max_size=2), st.none(), st.booleans(), st.just(Int64(7)))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)
paths = st.lists(names, min_size=1, max_size=3).map(".".join).filter(lambda path: path[0] not in "01")
updates = st.one_of(
    st.dictionaries(paths, values, min_size=1, max_size=3).map(lambda fields: {"$set": fields}),
    st.lists(paths, min_size=1, max_size=3).map(lambda fields: {"$unset": dict.fromkeys(fields, "")}),
    st.tuples(paths, st.lists(values, max_size=3), st.integers(-3, 3)).map(
        lambda push: {"$push": {push[0]: {"$each": push[1], "$slice": push[2]}}}
    ),
    st.tuples(paths, values).map(lambda push: {"$push": {push[0]: push[1]}}),
    st.tuples(paths, st.sampled_from([1, -1])).map(lambda pop: {"$pop": {pop[0]: pop[1]}}),
    st.tuples(paths, st.integers(-3, 3)).map(lambda inc: {"$inc": {inc[0]: inc[1]}}),
    st.tuples(paths, paths).map(lambda rename: {"$rename": {rename[0]: rename[1]}}),
    st.tuples(st.sampled_from("abc"), st.integers(0, 2)).map(
        lambda cut: [
            {
                "$set": {
                    cut[0]: {
                        "$cond": [
                            {"$isArray": "$" + cut[0]},
                            {
                                "$firstN": {
                                    "n": cut[1] + 1,
                                    "input": {"$cond": [{"$isArray": "$" + cut[0]}, "$" + cut[0], []]},
                                }
                            },
                            "$" + cut[0],
                        ]
                    }
                }
            }
        ]
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from("abc"), values, max_size=3), st.lists(updates, min_size=1, max_size=8))
def test_images_after_random_updates_are_what_was_stored(
    server: Server, document: dict[str, Any], steps: list[Any]
) -> None:
    """A shadow copy to which each reported difference is applied equals the document after each update."""
    # Not by `random`, which Hypothesis seeds: the end of one example would be heard in the next.
    name = f"random_{uuid.uuid4().hex[:12]}"
    with MongoClient[Any](server.url) as client:
        collection = client[name].create_collection("posts", changeStreamPreAndPostImages={"enabled": True})
        collection.insert_one({"_id": 1, **document})
        shadow = collection.find_one({"_id": 1})
        options: dict[str, Any] = {
            "full_document_before_change": "whenAvailable",
            "show_expanded_events": True,
        }
        with client[name].watch(**options, max_await_time_ms=500) as stream:
            for step in steps:
                try:
                    modified = collection.update_one({"_id": 1}, step).modified_count
                except OperationFailure:
                    continue  # an update that the server refuses, such as $push to a number
                stored = collection.find_one({"_id": 1})
                if not modified:
                    assert stored == shadow
                    continue
                event = stream.next()
                assert event["operationType"] == "update", event
                assert event["fullDocumentBeforeChange"] == shadow
                shadow = apply_update(event["fullDocumentBeforeChange"], event["updateDescription"])
                assert shadow == stored, (step, event)
        client.drop_database(name)
