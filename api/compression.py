"""Compressed answers: zstd, brotli or gzip, whichever `Accept-Encoding` prefers.

What is small, an event stream or of another type is sent as it is; with `identity;q=0` at least the small is coded.

An entity tag names the content and not its coding, so the same one stands on compressed and plain answers and on
events. See docs/decisions/0005-entity-tags.md.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette_compress import CompressMiddleware, add_compress_type, remove_compress_type

from api.negotiation import negotiate_coding

#: Smaller ones fit into one packet anyway.
MINIMUM_BYTES = 1_024
#: Stored files: their bytes are addressed by `Range`, which counts them uncompressed, and most are compressed already.
_FILE_CONTENT = re.compile(r"/api/v\d+/files/[^/]+/content")


class Compression:
    """ASGI middleware that compresses answers, except stored files and event streams."""

    def __init__(self, app: ASGIApp) -> None:
        # An event must leave at once, and is shared by all subscribers of its view as bytes that are encoded already.
        remove_compress_type("text/event-stream")
        add_compress_type("application/problem+json")
        # Flushed after each part of the body, so whoever reads an export as it comes is not kept waiting.
        for exported in ("application/x-ndjson", "text/csv"):
            add_compress_type(exported, streaming=True)
        self._app = app
        self._compressing = CompressMiddleware(app, minimum_size=MINIMUM_BYTES)
        self._compressing_all = CompressMiddleware(app, minimum_size=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or _FILE_CONTENT.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD" and scope["path"].startswith("/static/"):
            # Starlette sends no body for the HEAD of a file, and then nobody knows what GET would answer. The server
            # below drops it.
            scope = {**scope, "method": "GET"}
        # The middleware has an order of its own for whatever is accepted at all, so it is offered no choice.
        coding, plain_will_do = negotiate_coding(Headers(scope=scope).getlist("accept-encoding"))
        others = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        scope = {**scope, "headers": others if coding is None else [*others, (b"accept-encoding", coding.encode())]}
        await (self._compressing if plain_will_do else self._compressing_all)(scope, receive, send)
