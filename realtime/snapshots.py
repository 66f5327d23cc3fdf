"""Snapshots that meet their tail exactly.

T0 is the feed's position before the read, T1 the cluster time of the read's last reply. A document that did not change
in (T0, T1] was read as it stands at T1. One that did change has its last image in the feed's history, which takes the
place of what was read. So the result is exact at T1, whatever the isolation of the read, and exactly the changes
above T1 follow. (No snapshot read concern: on sharded clusters the parts of a transaction commit at different cluster
times, and the embedded server's snapshots are not snapshots.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from documents import (
    Change,
    Filter,
    Position,
    PublicForm,
    ResourceClass,
    Result,
    Sort,
    Stored,
    encode_json,
    sort_documents,
)
from realtime.feed import Feed
from realtime.history import concerns
from realtime.views import View

logger = logging.getLogger("headwater.snapshots")

#: A page is about this large; a client that reads slowly is sent the next one only when it has taken this one.
PAGE_BYTES = 128 * 1024
PAGE_DOCUMENTS = 500
#: Read this many more than the limit: changes during the read may take documents out of the result.
SPARE_DOCUMENTS = 50


class Reader(Protocol):
    """Reads a result from the database (`documents.Lists`)."""

    async def result(self, resource: ResourceClass, filter: Filter, sort: Sort, limit: int, since: Position) -> Result:
        """See `documents.Lists.result`."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A result that is exact at `position`. `pages` are JSON arrays of snapshot items, at least one."""

    position: Position
    pages: tuple[str, ...]
    complete: bool


@dataclass(eq=False)
class _Reading:
    """A read under way, and how many wait for it."""

    task: asyncio.Task[Snapshot]
    collection: str
    waiters: int = 0


class HistoryTooShort(Exception):
    """The feed's history no longer reaches back to the beginning of the read."""


class Snapshots:
    """Reads snapshots of views. Concurrent subscribers of a view that want the same order and limit share one read."""

    def __init__(self, feed: Feed, reader: Reader) -> None:
        self._feed = feed
        self._reader = reader
        self._running: dict[tuple[str, Sort, int], _Reading] = {}
        self._tasks: set[asyncio.Task[Snapshot]] = set()

    async def read(self, view: View, sort: Sort, limit: int) -> Snapshot:
        """A snapshot of `view`, in `sort` order, of at most `limit` documents.

        Tries again when history was too short to make the read exact. A cancelled caller leaves the shared read to
        the others; the last one ends it. Raises what the reader raises, and CancelledError when the read was
        overtaken by a reset (see `reset`).
        """
        key = (view.id, sort, limit)
        reading = self._running.get(key)
        if reading is None:
            task = asyncio.create_task(self._read(view, sort, limit), name=f"snapshot {view.id}")
            reading = self._running[key] = _Reading(task, view.resource.name)
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._finished(key, done))
        reading.waiters += 1
        try:
            # Shielded: a cancellation of one caller must not reach the others.
            return await asyncio.shield(reading.task)
        finally:
            reading.waiters -= 1
            if not reading.waiters:
                self._end(key, reading)

    def reset(self, collections: frozenset[str] | None) -> None:
        """Give up the reads of these collections (None: all) that are under way.

        Whoever subscribes again after a reset must not join a read from before it: that one would lead over the reset
        as if nothing had happened, or wait for a cluster time that lies in a future which the database has left.
        """
        for key, reading in list(self._running.items()):
            if collections is None or reading.collection in collections:
                self._end(key, reading)

    def _end(self, key: tuple[str, Sort, int], reading: _Reading) -> None:
        if self._running.get(key) is reading:
            del self._running[key]
        reading.task.cancel()

    def _finished(self, key: tuple[str, Sort, int], task: asyncio.Task[Snapshot]) -> None:
        self._tasks.discard(task)
        if (reading := self._running.get(key)) is not None and reading.task is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # marks it as seen: every waiter may be gone

    async def stop(self) -> None:
        """End all reads."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, view: View, sort: Sort, limit: int) -> Snapshot:
        spare = SPARE_DOCUMENTS
        while True:
            started = self._feed.head
            try:
                result = await self._reader.result(view.resource, view.filter, sort, limit + spare, started)
                await self._feed.passed(result.read_at)
                documents = self._worked_in(view, started, result)
            except HistoryTooShort:
                logger.warning("history is too short for a snapshot of %s; reading again", view.resource.name)
                continue
            truncated = len(result.documents) == limit + spare
            if truncated and len(documents) < limit:
                # So many documents left the result that others, which were not read, belong to it.
                spare = spare * 4 + limit
                continue
            # Sorting and encoding thousands of documents take long enough to hold up the event loop.
            edge = result.documents[-1] if truncated else None
            ordered = await asyncio.to_thread(sorted_up_to, list(documents.values()), sort, edge)
            if truncated and len(ordered) < limit:
                spare = spare * 4 + limit
                continue
            complete = not truncated and len(ordered) <= limit
            pages = await asyncio.to_thread(encode_pages, ordered[:limit], view.form, view.select)
            return Snapshot(result.read_at, pages, complete)

    def _worked_in(self, view: View, started: Position, result: Result) -> dict[Any, Stored]:
        """The documents read, each replaced by its last image in (started, read_at], or removed."""
        entries = self._feed.history.after(started)
        if entries is None:
            raise HistoryTooShort
        documents: dict[Any, Stored] = {_key(document["_id"]): document for document in result.documents}
        for entry in entries:
            if entry.position > result.read_at:
                break
            if concerns(entry, view.resource.name):
                raise HistoryTooShort
            if isinstance(entry, Change) and entry.collection == view.resource.name:
                key = _key(entry.document_id)
                if entry.after is not None and view.matches(entry.after):
                    documents[key] = entry.after
                else:
                    documents.pop(key, None)
        return documents


class _Edge(dict[str, Any]):
    """Marks where a truncated read ended."""


def sorted_up_to(documents: list[Stored], sort: Sort, edge: Stored | None) -> list[Any]:
    """The documents in order; of a truncated read only what sorts up to `edge`, the last document that was read.

    Beyond the edge there are documents that were not read, so what changes put there cannot be placed. Sorting is
    stable, so the edge's own document stands before its mark.
    """
    if edge is None:
        return sort_documents(documents, sort)
    marked = sort_documents([*documents, _Edge(edge)], sort)
    return marked[: next(place for place, document in enumerate(marked) if isinstance(document, _Edge))]


def _key(document_id: Any) -> Any:
    """An id as a dictionary key: ids that are documents are not hashable, and True equals 1 here but not there."""
    if isinstance(document_id, bool):
        return ("bool", document_id)
    try:
        hash(document_id)
    except TypeError:
        return ("document", repr(document_id))
    return document_id


def encode_pages(
    documents: list[Any], form: PublicForm, select: Callable[[dict[str, Any]], dict[str, Any]]
) -> tuple[str, ...]:
    """Snapshot items as JSON arrays of about PAGE_BYTES each; one empty array for an empty result."""
    pages: list[str] = []
    items: list[str] = []
    size = 0
    for stored in documents:
        document = form.document(stored)
        item = encode_json({"document": select(document), "etag": form.etag(document)}).decode()
        if items and (size + len(item) > PAGE_BYTES or len(items) >= PAGE_DOCUMENTS):
            pages.append(f"[{','.join(items)}]")
            items, size = [], 0
        items.append(item)
        size += len(item)
    pages.append(f"[{','.join(items)}]")
    return tuple(pages)


__all__ = ["HistoryTooShort", "Reader", "Snapshot", "Snapshots", "encode_pages"]
