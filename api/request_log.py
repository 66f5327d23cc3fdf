"""What is kept of each request when it is over."""

from __future__ import annotations

import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.services import Services

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Of answers that no route gave. There are as many paths as clients can think of.
UNMATCHED: Final = "unmatched"


class RequestLog:
    """ASGI middleware that counts requests and measures how long their answers take."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        services: Services = scope["app"].state.services
        metrics, began = services.figures.metrics, time.perf_counter()
        status, streams_events = 500, False

        async def send_and_note(message: Message) -> None:
            nonlocal status, streams_events
            if message["type"] == "http.response.start":
                status = message["status"]
                streams_events = any(
                    name == b"content-type" and value.startswith(b"text/event-stream")
                    for name, value in message.get("headers", ())
                )
            await send(message)

        metrics.requests_in_progress.inc()
        try:
            await self._app(scope, receive, send_and_note)
        finally:
            # Also when the client has left, or the server stops.
            metrics.requests_in_progress.dec()
            method, route = scope["method"] if scope["method"] in _METHODS else "other", route_of(scope)
            metrics.requests.labels(method, route, str(status)).inc()
            if not streams_events:
                metrics.request_seconds.labels(method, route).observe(time.perf_counter() - began)


def route_of(scope: Scope) -> str:
    """The template of the path that was asked for, such as `/api/v1/posts/{id}`; never anything that a client chose."""
    template = getattr(scope.get("route"), "path_format", None)
    if template is None:
        # Below a folder of files the path is the client's.
        return f"{scope['root_path']}/" if scope.get("endpoint") is not None else UNMATCHED
    # A route knows its path below its router's prefix; what precedes it are the prefix's own words.
    words = scope["path"].split("/")
    prefix = words[: len(words) - template.count("/")] if template else words
    return "/".join(prefix) + str(template)
