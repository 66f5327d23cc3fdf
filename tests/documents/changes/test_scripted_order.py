"""Scripted streams: positions, images, split events and reconnections."""

from __future__ import annotations

import contextlib

import pytest

from documents.changes import (
    Change,
    ChangeKind,
)
from tests.documents.changes.scripts import (
    AT,
    DISCONNECTED,
    START,
    Event,
    Script,
    event,
    fragments,
    insert,
    places,
    take,
    update,
)


async def test_changes_of_one_cluster_time_are_counted_across_batches() -> None:
    """The server's batches may cut a transaction anywhere; the count goes on, and starts anew at the next."""
    script = Script([[insert(5, 1), insert(5, 2)], [], [insert(5, 3)], [insert(6, 4)]])
    assert places(await take(script.stream(), 4)) == [(5, 1), (5, 2), (5, 3), (6, 1)]


async def test_one_batch_of_the_server_is_one_batch_of_entries() -> None:
    """Entries are neither held back to fill a batch nor dealt out one by one."""
    script = Script([[insert(5, 1), insert(5, 2)], [insert(6, 3)]])
    async with contextlib.aclosing(script.stream().batches()) as batches:
        assert [len(await anext(batches)), len(await anext(batches))] == [2, 1]


async def test_a_disconnect_inside_a_cluster_time_goes_on_counting() -> None:
    """The last event is read again, to know it again; its successor has the next ordinal."""
    first, second, third = insert(5, 1), insert(5, 2), insert(5, 3)
    script = Script([[first, second], DISCONNECTED], OSError("no route"), [[second, third]])
    stream = script.stream()
    assert places(await take(stream, 3)) == [(5, 1), (5, 2), (5, 3)]
    assert script.tokens == [None, first["_id"], first["_id"]]
    assert stream.reconnects == 2
    assert all(cursor.closed for cursor in script.cursors)


async def test_a_restart_inside_a_cluster_time_finds_the_same_positions() -> None:
    """Position and token of any entry are enough to continue with identical entries."""
    events = [insert(5, 1), insert(5, 2), insert(5, 3), insert(6, 4)]
    whole = await take(Script([events]).stream(), 4)
    for cut in range(1, 4):
        script = Script([events[cut:]])
        assert await take(script.stream(checkpoint=whole[cut - 1].checkpoint), 4 - cut) == whole[cut:]
        assert script.tokens[0] == events[cut - 1]["_id"]


async def test_a_disconnect_before_the_first_event_does_not_lose_it() -> None:
    """A start without a checkpoint is reopened where it began, not from now."""
    script = Script([DISCONNECTED], [[insert(5, 1)]])
    await take(script.stream(), 1)
    assert script.tokens == [None, START]


async def test_events_of_other_collections_count_alike_with_and_without_classes() -> None:
    """Which classes are registered decides what is kept, never a position."""
    noise = [event("create", 5, "other"), insert(5, 1, "other"), insert(5, 2), event("createIndexes", 5),
             insert(5, 3, "comments"), event("modify", 6), insert(6, 4)]  # fmt: skip
    every = await take(Script([noise]).stream(live={"posts", "comments", "other"}), 4)
    one = await take(Script([noise]).stream(live={"posts"}), 2)
    assert places(every) == [(5, 2), (5, 3), (5, 5), (6, 2)]
    assert one == [every[1], every[3]]
    assert await take(Script([noise]).stream(live=()), 0) == []


async def test_each_kind_of_write_gives_its_images() -> None:
    """Insert has no image before, delete none after; an update's is computed from the difference."""
    before = {"_id": 1, "n": 0}
    script = Script([[
        insert(5, 1),
        update(6, 1),
        event("replace", 7, documentKey={"_id": 1}, fullDocument={"_id": 1}, fullDocumentBeforeChange=before),
        event("delete", 8, documentKey={"_id": 1}, fullDocumentBeforeChange=before),
    ]])  # fmt: skip
    entries = await take(script.stream(), 4)
    seen = [(e.kind, e.before, e.after) for e in entries if isinstance(e, Change)]
    assert seen == [
        (ChangeKind.INSERT, None, {"_id": 1, "n": 0}),
        (ChangeKind.UPDATE, before, {"_id": 1, "n": 1}),
        (ChangeKind.REPLACE, before, {"_id": 1}),
        (ChangeKind.DELETE, before, None),
    ]
    assert {e.at for e in entries} == {AT}


async def test_an_update_with_ambiguous_names_and_cut_arrays() -> None:
    """`disambiguatedPaths` and `truncatedArrays` are followed."""
    before = {"_id": 1, "home.town": "Oxford", "places": [{"0": "x"}], "tags": [1, 2, 3]}
    description = {
        "updatedFields": {"home.town": "London", "places.0.0": "y"},
        "removedFields": [],
        "truncatedArrays": [{"field": "tags", "newSize": 1}],
        "disambiguatedPaths": {"home.town": ["home.town"], "places.0.0": ["places", 0, "0"]},
    }
    script = Script([[update(5, 1, fullDocumentBeforeChange=before, updateDescription=description)]])
    (change,) = await take(script.stream(), 1)
    assert isinstance(change, Change)
    assert change.after == {"_id": 1, "home.town": "London", "places": [{"0": "y"}], "tags": [1]}


def large(ts: int) -> Event:
    return update(ts, 1, fullDocumentBeforeChange={"_id": 1, "n": 0, "text": "x" * 1000})


GROUPS = (
    ("operationType", "clusterTime", "wallTime", "ns", "documentKey"),
    ("fullDocumentBeforeChange",),
    ("updateDescription",),
)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
async def test_a_split_event_is_joined_wherever_batches_end(cut: int) -> None:
    """Fragments are one change, with one ordinal, and the last fragment's token goes with it."""
    parts = fragments(large(5), *GROUPS)
    script = Script([[insert(5, 0), *parts[:cut]], [*parts[cut:], insert(5, 2)]])
    entries = await take(script.stream(), 3)
    assert places(entries) == [(5, 1), (5, 2), (5, 3)]
    joined = entries[1]
    assert isinstance(joined, Change)
    assert (joined.token, joined.size) == (parts[-1]["_id"], 300)
    assert joined.after == {"_id": 1, "n": 1, "text": "x" * 1000}


async def test_a_disconnect_between_fragments_reads_the_event_again() -> None:
    """A fragment is no place to resume from: the stream is opened before the whole event."""
    first = insert(5, 0)
    again = fragments(large(5), *GROUPS)
    script = Script([[first, *fragments(large(5), *GROUPS)[:2]], DISCONNECTED], [[first, *again]])
    entries = await take(script.stream(), 2)
    assert script.tokens == [None, START]
    assert (places(entries)[1], entries[1].token) == ((5, 2), again[-1]["_id"])


async def test_a_split_event_with_a_hole_is_read_again() -> None:
    """Fragments out of turn are never joined to something that the server did not send."""
    first, parts = insert(5, 0), fragments(large(5), *GROUPS)
    script = Script([[first, parts[0], parts[2]]], [[first, *parts, insert(6, 1)]])
    assert places(await take(script.stream(), 3)) == [(5, 1), (5, 2), (6, 1)]
    assert script.tokens == [None, START]
