"""Lists: pages of documents for REST, and whole results for snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bson import Timestamp

from documents.access import Principal
from documents.codec import Stored, decoded
from documents.cursors import CursorCodec
from documents.database import Database, driver_errors
from documents.errors import FilterRefused
from documents.filters import (
    EVERYTHING,
    Compare,
    Filter,
    Operator,
    canonical,
    conjunction,
    disjunction,
    to_query,
)
from documents.filters.values import ValueRefused, coerce_text
from documents.positions import Position
from documents.resources import ResourceClass
from documents.sorting import BY_ID, Sort, after, order_of, sort_value
from documents.store import Found, Store

Count = Literal["none", "estimated", "exact"]

#: A query that runs longer is stopped by the server and answered with 503: it needs an index or a narrower filter.
QUERY_TIME_LIMIT_MS = 20_000


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a client asks of a list. `limit` is the page's size; `page` counts from 1 and excludes `cursor`."""

    filter: Filter = EVERYTHING
    sort: Sort = BY_ID
    limit: int = 25
    cursor: str | None = None
    page: int | None = None
    count: Count = "none"


@dataclass(frozen=True, slots=True)
class Page:
    """One page, in order. `total` is None when it was not counted, `next_cursor` when this is the last page."""

    items: list[Found]
    next_cursor: str | None
    total: int | None
    position: Position

    @property
    def has_next(self) -> bool:
        """Whether more documents follow."""
        return self.next_cursor is not None


@dataclass(frozen=True, slots=True)
class Result:
    """Stored documents of one read, in order, and the cluster time that it reflects at least."""

    documents: list[Stored]
    read_at: Position


def words_filter(text: str, resource: ResourceClass, visible: Mapping[str, Any]) -> Filter:
    """All words of `text`, each in any of the class's searchable fields. Raises FilterRefused when it has none."""
    paths = [path for path in resource.declared.search if path in visible]
    words = text.split()
    if not paths:
        raise FilterRefused.at("query", "search", msg=f"{resource.name} has no searchable fields", type="search")
    if not words or len(words) > 20:
        raise FilterRefused.at("query", "search", msg="from 1 to 20 words are expected", type="search")
    try:
        texts = [coerce_text(word) for word in words]
    except ValueRefused as refused:
        raise FilterRefused.at("query", "search", msg=refused.msg, type=refused.type) from None
    return conjunction([disjunction([Compare(path, Operator.CONTAINS, text) for path in paths]) for text in texts])


class Lists:
    """Reads many documents of one class for a principal."""

    def __init__(self, database: Database, store: Store, cursors: CursorCodec) -> None:
        self._database = database
        self._store = store
        self._cursors = cursors

    async def page(self, resource: ResourceClass, query: ListQuery, principal: Principal) -> Page:
        """One page of what `principal` may read and the filter matches. Raises FilterRefused for a foreign cursor."""
        rule, _ = resource.rule("read", principal)
        everything = rule == EVERYTHING and query.filter == EVERYTHING
        wanted = to_query(conjunction([rule, query.filter]))
        identity, condition = self.identity(resource, query, principal), self.condition(resource, query, principal)
        async with self._database.session() as session:
            collection = self._database.readable(resource.name)
            with driver_errors():
                found = collection.find(condition, session=session).sort(order_of(query.sort)).limit(query.limit + 1)
                if query.page is not None:
                    found = found.skip((query.page - 1) * query.limit)
                documents = [decoded(d) for d in await found.max_time_ms(QUERY_TIME_LIMIT_MS).to_list(query.limit + 1)]
                total: int | None = None
                if query.count == "estimated" and everything:
                    total = await collection.estimated_document_count(maxTimeMS=QUERY_TIME_LIMIT_MS)
                elif query.count != "none":
                    total = await collection.count_documents(wanted, session=session, maxTimeMS=QUERY_TIME_LIMIT_MS)
            position = self._database.position(session)
        items = [self._store.found(resource, principal, d, position) for d in documents[: query.limit]]
        next_cursor = None
        if len(documents) > query.limit:
            last = documents[query.limit - 1]
            next_cursor = self._cursors.encode([sort_value(last, key) for key in query.sort], identity)
        return Page(items, next_cursor, total, position)

    def condition(self, resource: ResourceClass, query: ListQuery, principal: Principal) -> dict[str, Any]:
        """The MongoDB query for a page and all that follow it. Raises FilterRefused for a foreign cursor."""
        wanted = to_query(conjunction([resource.rule("read", principal)[0], query.filter]))
        if query.cursor is None:
            return wanted
        values = self._cursors.decode(query.cursor, query.sort, self.identity(resource, query, principal))
        return {"$and": [wanted, after(query.sort, values)]} if wanted else after(query.sort, values)

    async def result(self, resource: ResourceClass, filter: Filter, sort: Sort, limit: int, since: Position) -> Result:
        """Up to `limit` stored documents that match `filter` (rules included), read not earlier than `since`.

        The read is not a snapshot: documents that change meanwhile may appear in either form, or not at all. Every
        such change has a position in (`since`, `read_at`].
        """
        async with self._database.session() as session:
            if session is not None and since.ts:
                session.advance_operation_time(Timestamp(since.ts >> 32, since.ts & 0xFFFFFFFF))
            with driver_errors():
                cursor = (
                    self._database.readable(resource.name)
                    .find(to_query(filter), session=session)
                    .sort(order_of(sort))
                    .limit(limit)
                    .max_time_ms(QUERY_TIME_LIMIT_MS)
                )
                documents = await cursor.to_list(limit)
            return Result([decoded(document) for document in documents], self._database.position(session))

    @staticmethod
    def identity(resource: ResourceClass, query: ListQuery, principal: Principal) -> bytes:
        """What a cursor is good for: this list, for this caller."""
        order = ",".join(f"{'-' if key.descending else ''}{key.path}" for key in query.sort)
        scopes = "*" if principal.scopes is None else ",".join(sorted(principal.scopes))
        caller = f"{principal.user_id} {scopes}"
        return b"\0".join([resource.name.encode(), order.encode(), canonical(query.filter), caller.encode()])
