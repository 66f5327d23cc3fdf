"""Whole results as text, read little by little: what exports stream."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from documents.access import Principal
from documents.codec import Stored, decoded
from documents.database import Database, driver_errors
from documents.filters import EVERYTHING, Filter, conjunction, to_query
from documents.positions import Position
from documents.public import encode_json, selected
from documents.resources import ResourceClass
from documents.sorting import BY_ID, Sort, order_of
from documents.store import Store

#: Documents of one reply of the database, and at most of one chunk: about 3 ms of the event loop.
BATCH = 100
CHUNK_BYTES = 64 * 1024
#: Time that the server may spend on one export. What passes while the client takes its time does not count.
EXPORT_TIME_LIMIT_MS = 300_000

_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - the wide forms count too
_NUMBER = re.compile(r"-\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class ExportQuery:
    """What a client asks of an export. `limit` bounds the whole; None for all that match."""

    filter: Filter = EVERYTHING
    sort: Sort = BY_ID
    limit: int | None = None


class Lines(Protocol):
    """A text format that holds one document after another."""

    def header(self) -> bytes:
        """What comes before all documents."""

    def row(self, document: Mapping[str, Any]) -> bytes:
        """One document, its end of line included."""


@dataclass(slots=True)
class Export:
    """A result while it is read: what has been read so far, and the position that it reflects at least."""

    position: Position = Position.ZERO
    documents: int = 0


class Exports:
    """Reads all documents of a list for a principal, holding few of them at a time."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store

    def public_names(self, resource: ResourceClass, principal: Principal) -> tuple[str, ...]:
        """The fields that `principal` sees, in the order in which documents have them."""
        return self._store.public_form(resource, principal.roles).names

    async def chunks(
        self, resource: ResourceClass, query: ExportQuery, principal: Principal, lines: Lines, export: Export
    ) -> AsyncGenerator[bytes, None]:
        """What `principal` may read and the filter matches, in order, as text of about CHUNK_BYTES at a time.

        The database is asked for more only when the next chunk is; close the generator (`contextlib.aclosing`) to end
        the read. It is not a snapshot: a document that changes meanwhile is shown in either form, and one whose sort
        key changes may be missed or come twice. `export` is kept up to date; it has a position from the first chunk
        on, which is there even when there are no documents. Raises DatabaseAway and QueryTooSlow.
        """
        rule, _ = resource.rule("read", principal)
        form = self._store.public_form(resource, principal.roles)
        chunk = bytearray(lines.header())
        held = 0
        async with self._database.session() as session:
            cursor = (
                self._database.readable(resource.name)
                .find(to_query(conjunction([rule, query.filter])), session=session)
                .sort(order_of(query.sort))
                .limit(query.limit or 0)
                .max_time_ms(EXPORT_TIME_LIMIT_MS)
                .batch_size(BATCH)
            )
            try:
                # One reply of the server, at most 16 MB, is all that is held; nothing here waits while it lasts.
                async for stored in _mapped(cursor):
                    if not export.documents:
                        export.position = self._database.position(session)
                    chunk += lines.row(form.document(stored))
                    export.documents += 1
                    held += 1
                    if len(chunk) >= CHUNK_BYTES or held == BATCH:
                        yield bytes(chunk)
                        chunk.clear()
                        held = 0
                if not export.documents:
                    export.position = self._database.position(session)
            finally:
                await cursor.close()
        if chunk or not export.documents:
            yield bytes(chunk)


async def _mapped(cursor: AsyncIterable[Mapping[str, Any]]) -> AsyncIterator[Stored]:
    """The cursor's documents, with this folder's exceptions in place of the driver's."""
    with driver_errors():
        async for stored in cursor:
            yield decoded(stored)


class NdjsonLines:
    """Documents as JSON, one a line; with `fields`, these and the id alone, and which of them are invalid."""

    def __init__(self, fields: Sequence[str] | None) -> None:
        self._fields = None if fields is None else frozenset(fields)

    def header(self) -> bytes:
        """Nothing."""
        return b""

    def row(self, document: Mapping[str, Any]) -> bytes:
        """One line."""
        if self._fields is not None:
            document = selected(document, self._fields)
        return encode_json(document) + b"\n"


class CsvLines:
    """Documents as CSV (RFC 4180) with a column for each of `columns`; nested values are JSON, absent ones empty.

    A text that a spreadsheet would take for a formula gets an apostrophe before it, as OWASP advises ("CSV
    Injection"): one that begins with `=`, `+`, `-`, `@`, a tab or a line break, and is not just a negative number.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._buffer = io.StringIO()
        self._writer = csv.writer(self._buffer, lineterminator="\r\n")

    def header(self) -> bytes:
        """The first line: the columns' names."""
        return self._written(self._columns)

    def row(self, document: Mapping[str, Any]) -> bytes:
        """One line, or more where a text has line breaks."""
        return self._written([_cell(document.get(name)) for name in self._columns])

    def _written(self, cells: Sequence[str]) -> bytes:
        self._writer.writerow(cells)
        text = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return text.encode()


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return f"'{value}" if value.startswith(_DANGEROUS) and not _NUMBER.fullmatch(value) else value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
    text = encode_json(value).decode()
    return "" if text == "null" else text  # NaN and infinities, which JSON does not have
