"""What is kept of each request and socket when it is over: figures for the metrics, and one line in the log."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from fastapi.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.addresses import address_of
from api.problems import Problem, problem_answer
from api.services import Caller, Services
from realtime import Connection

logger = logging.getLogger("headwater.access")

#: The status of a request whose client left before an answer began, as nginx has it. No client ever sees it.
CLIENT_LEFT: Final = 499
_SOON: Final = {"Retry-After": "1"}
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Of answers that no route gave. There are as many paths as clients can think of.
UNMATCHED: Final = "unmatched"
#: What machines ask every few seconds. Their lines are for those who want to see everything.
PROBES: Final = frozenset({"/health/live", "/health/ready", "/metrics"})


class RequestLog:
    """ASGI middleware that counts requests, measures how long their answers take, and logs them, and sockets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        services: Services = scope["app"].state.services
        seen = _Seen(scope, receive, send)
        try:
            if scope["type"] == "websocket":
                await self._app(scope, seen.receive, seen.send_frame)
            else:
                await self._request(services, scope, seen)
        finally:
            # Also when the client has left, or the server stops.
            seen.log()

    async def _request(self, services: Services, scope: Scope, seen: _Seen) -> None:
        metrics = services.figures.metrics
        metrics.requests_in_progress.inc()
        try:
            await self._app(scope, seen.pass_on, seen.send)
            seen.status = seen.status or CLIENT_LEFT
        except asyncio.CancelledError:
            # By the server, when the grace of a stop is over; the task ends here in any case. Else the log would have a
            # stack trace for each, and clients a 500.
            if not services.manager.draining:
                raise
            if not seen.status:
                stopping = Problem(503, "The server stops; it may have done what was asked.", headers=_SOON)
                await problem_answer(stopping, scope)(scope, seen.pass_on, seen.send)
        finally:
            metrics.requests_in_progress.dec()
            method, route = method_of(scope), route_of(scope)
            metrics.requests.labels(method, route, str(seen.status or 500)).inc()
            if not seen.streams_events:
                metrics.request_seconds.labels(method, route).observe(seen.seconds)


class Routed:
    """ASGI middleware next to the router: tells `RequestLog` of the route that was taken.

    The router says so in the scope, of which the middleware between the two may have made another.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] != "lifespan":
                scope["state"]["route"] = _template(scope)


class _Seen:
    """What was seen of one request or socket. `status` is 0 until an answer has begun, `code` until a socket closes."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.status = 0
        self.code = 0
        self.bytes = 0
        self.streams_events = False
        self.pass_on = receive
        self._scope = scope
        self._send = send
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return time.perf_counter() - self._began

    async def send(self, message: Message) -> None:
        """Send a part of an answer."""
        if message["type"].endswith("http.response.start"):
            self.status = message["status"]
            self.streams_events = any(
                name == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
        else:
            self.bytes += len(message.get("body", b""))
        await self._send(message)

    async def send_frame(self, message: Message) -> None:
        """Send a frame, or what ends a socket or refuses a handshake."""
        kind = message["type"]
        if kind == "websocket.send":
            # Characters, which is close to bytes and costs nothing.
            self.bytes += len(message.get("text") or message.get("bytes") or "")
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close":
            self.status, self.code = self.status or 403, self.code or message.get("code", 1000)
        else:
            await self.send(message)
            return
        await self._send(message)

    async def receive(self) -> Message:
        """Receive what a socket's client sends."""
        message = await self.pass_on()
        if message["type"] == "websocket.disconnect":
            self.code = self.code or message.get("code", 1005)
        return message

    def log(self) -> None:
        """Write the line."""
        scope, route = self._scope, route_of(self._scope)
        level = logging.DEBUG if route in PROBES and self.status < 500 else logging.INFO
        if not logger.isEnabledFor(level):
            return
        facts: dict[str, Any] = {"route": route, "status": self.status or 500}
        if scope["type"] == "http":
            facts = {"method": method_of(scope)} | facts
        elif self.status == 101:
            facts["code"] = self.code or 1006
        facts |= {"duration_ms": round(self.seconds * 1_000, 1), "bytes": self.bytes}
        facts |= _who(scope) | {"address": address_of(HTTPConnection(scope))}
        logger.log(level, "request" if scope["type"] == "http" else "socket", extra=facts)


def _who(scope: Scope) -> dict[str, str]:
    """The user, and the connection that the client was told the name of."""
    state = scope.get("state", {})
    caller, connection = state.get("caller"), state.get("connection")
    principal = caller.principal if isinstance(caller, Caller) else None
    found: dict[str, str] = {}
    if isinstance(connection, Connection):
        # Somebody may have signed in on it since.
        found["connection"], principal = connection.id, connection.principal
    return {"user": str(principal.user_id)} | found if principal is not None and principal.signed_in else found


def method_of(scope: Scope) -> str:
    """The method; `other` for words that a client has made up."""
    method: str = scope["method"]
    return method if method in _METHODS else "other"


def route_of(scope: Scope) -> str:
    """The template of the path that was asked for, such as `/api/v1/posts/{id}`; never anything that a client chose."""
    route: str = scope.get("state", {}).get("route", UNMATCHED)
    return route


def _template(scope: Scope) -> str:
    template = getattr(scope.get("route"), "path_format", None)
    if template is None:
        # Below a folder of files the path is the client's.
        return f"{scope['root_path']}/" if scope.get("endpoint") is not None else UNMATCHED
    # A route knows its path below its router's prefix; what precedes it are the prefix's own words.
    words = scope["path"].split("/")
    return "/".join(words[: len(words) - template.count("/")]) + str(template)
