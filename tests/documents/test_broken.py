"""Broken documents as they are met: each counted and named once, without its values."""

from __future__ import annotations

import pytest
from bson import ObjectId

from documents import Registry, broken
from documents.broken import BrokenDocuments
from tests.documents.classes import Note, Specimen


def test_each_is_counted_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """Once more for another revision and for another fault; a sound one never."""
    met = BrokenDocuments(Registry([Note, Specimen]))
    one = {"_id": ObjectId(), "must": 1, "text": 12345, "revision": 1}
    for stored in (one, one, one | {"revision": 2}, one | {"flag": "secret"}, one | {"text": "sound"}):
        met.faults("specimens", stored)
    assert met.counts == {"notes": 0, "specimens": 3}
    assert len(caplog.messages) == 3
    assert all(str(one["_id"]) in line and "'text'" in line for line in caplog.messages)
    assert not any("12345" in line or "secret" in line for line in caplog.messages)


def test_many_of_them(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are counted; a minute's log has so many lines, and then says how many more there were."""
    clock = 100.0
    monkeypatch.setattr("documents.broken.time.monotonic", lambda: clock)
    met = BrokenDocuments(Registry([Specimen]))
    for _ in range(130):
        met.faults("specimens", {"_id": ObjectId()})
    assert (met.counts["specimens"], len(caplog.messages)) == (130, 100)
    clock += 60
    met.faults("specimens", {"_id": ObjectId()})
    assert len(caplog.messages) == 102
    assert caplog.messages[100] == "30 more documents that break the rules were not named here"


def test_no_more_are_remembered_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was met longest ago is forgotten, and counts again."""
    monkeypatch.setattr(broken, "_MAX_KNOWN", 2)
    met = BrokenDocuments(Registry([Specimen]))
    first, second, third = ({"_id": ObjectId()} for _ in range(3))
    for stored in (first, second, first, third, first, second):
        met.faults("specimens", stored)
    assert met.counts["specimens"] == 4
