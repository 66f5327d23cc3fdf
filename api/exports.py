"""Whole lists as NDJSON or CSV, streamed: the list URL with another `Accept`."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from api.event_stream import client_gone
from api.negotiation import COMMON_HEADERS, CSV, NDJSON
from api.queries import parse_export, query_items
from api.services import Caller, Services
from documents import INVALID, CsvLines, DatabaseAway, Export, ExportQuery, Lines, NdjsonLines, ResourceClass

logger = logging.getLogger("headwater.api")

#: A client that takes nothing for this long is given up: its read holds a cursor of the database.
STALL_SECONDS = 60.0
_TYPES = {CSV: "text/csv; charset=utf-8; header=present", NDJSON: NDJSON}
_SUFFIXES = {CSV: "csv", NDJSON: "ndjson"}


def export_list(
    request: Request, resource: ResourceClass, caller: Caller, services: Services, media_type: str
) -> Response:
    """The answer that streams a list as `media_type`. Raises FilterRefused for a query string that is not accepted."""
    asked = parse_export(resource, caller.principal, query_items(request.scope["query_string"]))
    lines: Lines
    if media_type == CSV:
        whole = (*services.exports.public_names(resource, caller.principal), INVALID)
        columns = whole if asked.fields is None else tuple(dict.fromkeys(("id", *asked.fields)))
        lines = CsvLines(columns)
    else:
        lines = NdjsonLines(asked.fields)
    headers = {
        "Content-Type": _TYPES[media_type],
        "Content-Disposition": f'attachment; filename="{resource.name}.{_SUFFIXES[media_type]}"',
    }
    return ExportStream(services, resource, caller, asked.query, lines, headers)


class ExportStream(Response):
    """Sends an export while it is read, no faster than the client takes it.

    A failure before the first chunk is a problem like any other. After it, the connection is closed without the end
    of the body, so that a part of a list is never taken for the whole.
    """

    def __init__(
        self,
        services: Services,
        resource: ResourceClass,
        caller: Caller,
        query: ExportQuery,
        lines: Lines,
        headers: dict[str, str],
    ) -> None:
        super().__init__()
        self._services = services
        self._resource = resource
        self._caller = caller
        self._query = query
        self._lines = lines
        self._export_headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole, or until the client goes away. For HEAD the headers alone, which need no more than a row."""
        head = scope["method"] == "HEAD"
        export = Export()
        query = ExportQuery(self._query.filter, self._query.sort, 1) if head else self._query
        reading = self._services.exports.chunks(self._resource, query, self._caller.principal, self._lines, export)
        leaving: asyncio.Task[None] | None = None
        async with contextlib.aclosing(reading):
            try:
                chunk = await anext(reading)
                await send({"type": "http.response.start", "status": 200, "headers": self._head(export)})
                if not head:
                    leaving = asyncio.create_task(client_gone(receive))
                    # Nothing is cancelled in the middle of a read: one batch later it ends by itself.
                    while chunk and not leaving.done():
                        body = {"type": "http.response.body", "body": chunk, "more_body": True}
                        async with asyncio.timeout(STALL_SECONDS):
                            await send(body)
                        chunk = await anext(reading, b"")
                    if leaving.done():
                        logger.info(
                            "export of %s: the client left after %d documents", self._resource.name, export.documents
                        )
                        return
            except (DatabaseAway, TimeoutError) as error:
                if leaving is None:
                    raise
                reason = "the client takes nothing" if isinstance(error, TimeoutError) else error
                logger.warning(
                    "export of %s: broken off after %d documents: %s", self._resource.name, export.documents, reason
                )
                # The server closes the connection of an answer that was not completed.
                return
            finally:
                if leaving is not None:
                    leaving.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _head(self, export: Export) -> list[tuple[bytes, bytes]]:
        self.headers["X-Position"] = self._services.positions.encode(export.position)
        self.headers.update(COMMON_HEADERS | self._export_headers)
        del self.headers["content-length"]
        return self.raw_headers
