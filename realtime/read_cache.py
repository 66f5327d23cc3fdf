"""What this worker has read lately, as long as the feed tells of no change.

The promise: nobody gets content from here that is older than what this worker has pushed to its sockets, and nobody
gets it older than what they have written themselves through this worker. Another worker may be ahead by the feed's lag;
a client that has to see there what it wrote here waits for its position on a socket (`ping`).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from documents import (
    FOREIGN_ID,
    Change,
    Entry,
    Found,
    ListQuery,
    Lists,
    Page,
    Position,
    Principal,
    Reset,
    ResourceClass,
    Store,
    canonical,
    encode_json,
    parse_id,
    public_id,
)
from realtime.feed import Feed

MAX_ENTRIES = 20_000
MAX_BYTES = 32 * 1024 * 1024
#: One answer above this is not worth what it would push out.
MAX_ENTRY_BYTES = MAX_BYTES // 16
MAX_WRITERS = 10_000
#: The heartbeat moves the feed each second. One that has not moved for longer tells of changes late, or not at all.
MAX_SILENCE_SECONDS = 3.0
#: What an entry costs besides its content.
_OVERHEAD_BYTES = 500

_T = TypeVar("_T", Found, Page)


@dataclass(eq=False, slots=True)
class _Reading:
    """A read of the database under way. `stale`: what it reads has changed, as the feed said meanwhile."""

    collection: str
    document_id: str | None
    stale: bool = False


@dataclass(slots=True)
class _Kept:
    content: Any
    size: int
    collection: str
    document_id: str | None


class ReadCache:
    """Documents and pages of the classes that ask for it, bounded in entries and bytes; the least used go first.

    An answer is kept for all whom it is the same for: the same rule, roles and query. `on_entry` is a listener of the
    feed: add it before the connection manager's, so that what is pushed has been dropped from here.
    """

    def __init__(self, feed: Feed, store: Store, lists: Lists) -> None:
        self.hits = 0
        self.misses = 0
        self.bytes = 0
        self._feed = feed
        self._store = store
        self._lists = lists
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        #: Keys by collection and document (None: pages), to be dropped together.
        self._keys: dict[tuple[str, str | None], set[Hashable]] = {}
        self._readings: set[_Reading] = set()
        self._writers: OrderedDict[str, Position] = OrderedDict()
        self._moved_at = time.monotonic()

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, resource: ResourceClass, id_text: str, principal: Principal, reader: str) -> Found:
        """As `Store.get`. `reader` is the name under which the caller's own writes are told to `wrote`."""

        async def read() -> Found:
            return await self._store.get(resource, id_text, principal)

        if id_text.startswith(FOREIGN_ID):
            # MongoDB finds by equal numbers of any type, which the feed would tell of under another name.
            return await read()
        # As the feed spells it: an address may have other capitals.
        document_id = public_id(parse_id(resource, id_text), resource.id_kind)
        return await self._through(resource, document_id, (), principal, reader, read)

    async def page(self, resource: ResourceClass, query: ListQuery, principal: Principal, reader: str) -> Page:
        """As `Lists.page`."""

        async def read() -> Page:
            return await self._lists.page(resource, query, principal)

        # A page holds a cursor, which is its reader's own.
        what = (self._lists.identity(resource, query, principal), query.limit, query.cursor, query.page, query.count)
        return await self._through(resource, None, what, principal, reader, read)

    def wrote(self, writer: str, position: Position) -> None:
        """`writer` has been told that a write of theirs stands at `position`: older content is not for them."""
        self._writers[writer] = max(position, self._writers.pop(writer, Position.ZERO))
        while len(self._writers) > MAX_WRITERS:
            # Whoever is forgotten would read old content, if the feed has not passed their write yet.
            _, forgotten = self._writers.popitem(last=False)
            if not self._feed.has_passed(forgotten):
                self.clear()

    def clear(self) -> None:
        """Forget everything, and what is being read."""
        self._kept.clear()
        self._keys.clear()
        self.bytes = 0
        for reading in self._readings:
            reading.stale = True

    def on_entry(self, entry: Entry) -> None:
        """A listener of the feed."""
        self._moved_at = time.monotonic()
        if isinstance(entry, Change):
            resource = self._store.registry.get(entry.collection)
            document_id = public_id(entry.document_id, resource.id_kind) if resource is not None else None
            for reading in self._readings:
                if reading.collection == entry.collection and reading.document_id in (None, document_id):
                    reading.stale = True
            self._drop(entry.collection, document_id)
            self._drop(entry.collection, None)
        elif isinstance(entry, Reset):
            self.clear()

    async def _through(
        self,
        resource: ResourceClass,
        document_id: str | None,
        what: tuple[Hashable, ...],
        principal: Principal,
        reader: str,
        read: Callable[[], Awaitable[_T]],
    ) -> _T:
        if not resource.declared.cache or not self._is_live():
            return await read()
        rule, _ = resource.rule("read", principal)
        key = (resource.name, document_id, canonical(rule), principal.roles, what)
        kept = self._kept.get(key)
        if kept is not None and self._is_for(reader):
            self.hits += 1
            self._kept.move_to_end(key)
            content: _T = kept.content
            return content
        self.misses += 1
        reading, begun_at = _Reading(resource.name, document_id), self._feed.head
        self._readings.add(reading)
        try:
            found = await read()
        finally:
            self._readings.discard(reading)
        # A change that the feed brought meanwhile dropped what was kept then; what was read may be older than it. And a
        # member of the replica set that lags behind the feed answers with what nothing will drop again.
        if not reading.stale and found.position >= begun_at:
            self._keep(key, found, resource.name, document_id)
        return found

    def _is_live(self) -> bool:
        return self._feed.connected and time.monotonic() - self._moved_at < MAX_SILENCE_SECONDS

    def _is_for(self, reader: str) -> bool:
        """Whether what is kept is new enough for somebody: what the feed has passed has been dropped."""
        written = self._writers.get(reader)
        if written is None:
            return True
        if not self._feed.has_passed(written):
            return False
        del self._writers[reader]
        return True

    def _keep(self, key: Hashable, content: Found | Page, collection: str, document_id: str | None) -> None:
        documents = [content] if isinstance(content, Found) else content.items
        size = _OVERHEAD_BYTES + sum(len(encode_json(found.document)) for found in documents)
        if size > MAX_ENTRY_BYTES:
            return
        self._forget(key)
        self._kept[key] = _Kept(content, size, collection, document_id)
        self._keys.setdefault((collection, document_id), set()).add(key)
        self.bytes += size
        while len(self._kept) > MAX_ENTRIES or self.bytes > MAX_BYTES:
            self._forget(next(iter(self._kept)))

    def _drop(self, collection: str, document_id: str | None) -> None:
        for key in tuple(self._keys.get((collection, document_id), ())):
            self._forget(key)

    def _forget(self, key: Hashable) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        self.bytes -= kept.size
        place = (kept.collection, kept.document_id)
        self._keys[place].discard(key)
        if not self._keys[place]:
            del self._keys[place]
