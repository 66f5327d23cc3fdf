"""What happened, as the database itself tells it to a reader of ours that no fault concerns."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure, PyMongoError

from tests.chaos.ledger import BOOKKEEPING, Ledger
from tests.chaos.site import until

#: Hexadecimal digits of the cluster time that a position begins with.
TIME_DIGITS = 16
READ_SECONDS = 60


class Truth:
    """Every change of one collection that is due to a subscriber who may see all of it: cluster time, op, id, in order.

    It reads from before the first write until cancelled. Where even the database has forgotten what happened there is a
    gap, and nothing is said of stretches that reach over it: everybody was told `reset` there.
    """

    def __init__(self, collection: AsyncCollection[dict[str, Any]]) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.gaps: list[tuple[str, str]] = []
        #: When each event came here.
        self._came: list[float] = []
        self._collection = collection
        self._token: Mapping[str, Any] | None = None
        self._time = ""
        self._gap = False
        self.open = asyncio.Event()

    async def run(self) -> None:
        """Read."""
        while True:
            try:
                await self._read()
            except OperationFailure:
                # Not to be resumed: some of it may be gone for good.
                self._token, self._gap = None, True
            except PyMongoError:
                pass
            await asyncio.sleep(0.05)

    async def _read(self) -> None:
        options: dict[str, Any] = {"full_document_before_change": "whenAvailable", "max_await_time_ms": 200}
        async with await self._collection.watch(resume_after=self._token, **options) as stream:
            self._token = self._token or stream.resume_token
            self.open.set()
            while stream.alive:
                change = await stream.try_next()
                self._token = stream.resume_token
                if change is not None:
                    self._note(change)

    def _note(self, change: Mapping[str, Any]) -> None:
        at = change["clusterTime"]
        time = f"{at.time:08x}{at.inc:08x}"
        op, before = change["operationType"], change.get("fullDocumentBeforeChange")
        if self._gap or (before is None and op != "insert"):
            self.gaps.append((self._time, time))
            self._gap = False
        elif op == "insert":
            self._add(time, "create", change)
        elif op == "delete" or _shows(before or {}, change):
            self._add(time, "delete" if op == "delete" else "update", change)
        self._time = time

    def _add(self, time: str, op: str, change: Mapping[str, Any]) -> None:
        self.events.append((time, op, str(change["documentKey"]["_id"])))
        self._came.append(monotonic())

    def age_of_next(self, position: str) -> float:
        """For how many seconds something has been known here that is after `position`."""
        after = bisect_right(self.events, position[:TIME_DIGITS], key=_time_of)
        return monotonic() - self._came[after] if after < len(self.events) else 0.0

    async def reaches(self, id: str) -> None:
        """Wait until the creation of this document was read."""
        with contextlib.suppress(TimeoutError):
            await until(lambda: any(event[2] == id for event in reversed(self.events)), "truth", READ_SECONDS)

    def compare(self, ledger: Ledger) -> int:
        """Hold the stretches of views that show everything against what happened; answers how many were."""
        whole = [(who, stretch) for who, stretch in ledger.stretches if stretch.view in ledger.whole_views]
        compared = 0
        for who, stretch in whole:
            first, last = stretch.start[:TIME_DIGITS], stretch.end[:TIME_DIGITS]
            # What shares the first or last cluster time may be within or without.
            if first >= last or any(first < after and before < last for before, after in self.gaps):
                continue
            compared += 1
            due = self._between(first, last)
            if due != (told := _within(ledger.events_of(stretch), first, last)):
                lacking = [event for event in due if event not in set(told)]
                surplus = [event for event in told if event not in set(due)]
                ledger.violate(
                    who,
                    f"from {first} to {last} the database had {len(due)} changes and {len(told)} were told; "
                    f"not told: {lacking[:3]}; told and not there: {surplus[:3]}",
                )
        return compared

    def _between(self, first: str, last: str) -> list[tuple[str, str, str]]:
        start = bisect_right(self.events, first, key=_time_of)
        return self.events[start : bisect_left(self.events, last, key=_time_of)]


def _within(events: Sequence[tuple[str, str, str]], first: str, last: str) -> list[tuple[str, str, str]]:
    cut = [(position[:TIME_DIGITS], op, id) for position, op, id in events]
    return [event for event in cut if first < event[0] < last]


def _time_of(event: tuple[str, str, str]) -> str:
    return event[0]


def _shows(before: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    """Whether an update changes more than bookkeeping."""
    if change["operationType"] == "replace":
        after = change["fullDocument"]
        return any(before.get(name) != after.get(name) for name in (before.keys() | after.keys()) - BOOKKEEPING)
    done = change["updateDescription"]
    if any(name not in BOOKKEEPING for name in done["removedFields"]) or done.get("truncatedArrays"):
        return True
    return any(
        "." in path or before.get(path) != value
        for path, value in done["updatedFields"].items()
        if path.split(".")[0] not in BOOKKEEPING
    )
