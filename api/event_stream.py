"""Server-Sent Events (WHATWG HTML, 9.2) on the list URL: one live subscription as an HTTP answer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from api.addresses import address_of
from api.callers import caller_of, caller_of_live, challenge_unless_signed_in, credential_ended
from api.negotiation import EVENTS, LIST_TYPES, negotiate
from api.queries import LiveRequest, parse_live, query_items
from api.services import Caller, Services
from documents import InvalidInput, Position, ResourceClass
from realtime import Connection, Origin, Refused, SubscribeRequest, Transport, ViewQuery, message_frame, protocol
from realtime.protocol import CloseCode, ErrorCode

#: How long the last frames may take to leave when the server closes the stream.
FLUSH_SECONDS = 2.0
#: Answers to messages that a client of an event stream cannot send.
_NOT_SENT = frozenset({"subscribed", "auth_expiring"})
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    # nginx buffers answers by default, which would hold events back.
    (b"x-accel-buffering", b"no"),
]


def asks_for_events(request: Request) -> bool:
    """Whether a request for a list wants its events. Answers 406 to one that wants nothing that a list is.

    HEAD is about the page: a live answer has no end, so its head alone says nothing.
    """
    return negotiate(request.headers.getlist("accept"), LIST_TYPES) == EVENTS and request.method == "GET"


async def list_caller_of(request: Request) -> Caller:
    """The caller of a list: by a ticket too where the list is live, and nowhere else."""
    return await (caller_of_live(request) if asks_for_events(request) else caller_of(request))


ListCaller = Annotated[Caller, Depends(list_caller_of)]


async def signed_in_to_list(caller: ListCaller) -> None:
    """401 for an anonymous caller of a list."""
    challenge_unless_signed_in(caller)


def live_list(request: Request, resource: ResourceClass, caller: Caller, services: Services) -> Response:
    """The live answer of a list URL. Raises FilterRefused for a query string that is not accepted."""
    asked = parse_live(
        resource,
        caller.principal,
        [item for item in query_items(request.scope["query_string"]) if item[0] != "ticket"],
        request.headers.get("last-event-id"),
        snapshot_max=services.settings.snapshot_max,
    )
    return EventStream(services, resource, caller, asked)


class EventStream(Response):
    """Runs one connection until the client or the server ends it."""

    media_type = "text/event-stream"

    def __init__(self, services: Services, resource: ResourceClass, caller: Caller, asked: LiveRequest) -> None:
        super().__init__()
        self._services = services
        self._resource = resource
        self._caller = caller
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client goes away, the token expires, or the server drains."""
        manager = self._services.manager
        origin = Origin(Transport.EVENT_STREAM, address_of(HTTPConnection(scope)))
        scope["state"]["connection"] = connection = manager.connect(self._caller.principal, origin)
        try:
            if (credential := self._caller.credential) is not None:
                connection.credential = credential
                connection.watch_expiry(self._caller.expires_at)
                # A sign-out or a change of rights may have passed by since the request was authenticated. From here on
                # the manager would tell this connection of it.
                standing = await self._services.principals.resolve(credential)
                if standing is None:
                    raise credential_ended()
                if standing.principal != connection.principal:
                    manager.rename(connection, standing.principal)
            connection.subscribe(self._request())
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            writing = asyncio.create_task(_write(connection, send))
            leaving = asyncio.create_task(client_gone(receive))
            try:
                ends: set[asyncio.Future[Any]] = {writing, leaving, connection.closing}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if connection.closing.done() and connection.closing.result() is not CloseCode.SLOW_CONSUMER:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(FLUSH_SECONDS):
                            await connection.outbox.below(0)
            finally:
                gone = leaving.done()
                writing.cancel()
                leaving.cancel()
                await asyncio.gather(writing, leaving, return_exceptions=True)
            if connection.closing.done():
                manager.closed[connection.closing.result()] += 1
            if not gone:
                # A client that takes nothing does not take this either; then the server closes the connection.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_SECONDS):
                        await send({"type": "http.response.body", "body": _last_words(connection), "more_body": False})
        except Refused as refused:  # pragma: no cover - a new connection has no other subscription to collide with
            raise InvalidInput.at("query", msg=str(refused), type=refused.code) from None
        finally:
            await asyncio.shield(connection.end())

    def _request(self) -> SubscribeRequest:
        asked = self._asked
        return SubscribeRequest(
            id="sse",
            query=ViewQuery(self._resource, asked.filter, asked.fields),
            sort=asked.sort,
            limit=asked.limit,
            snapshot=asked.snapshot,
            since=self._since(asked.since),
        )

    def _since(self, text: str | None) -> tuple[str, Position] | None:
        if text is None:
            return None
        view, _, position = text.rpartition("@")
        try:
            return view, self._services.positions.decode(position)
        except InvalidInput:
            # Of another database, or nobody's: nothing can be recovered from it, and a snapshot follows.
            return view, Position.ZERO


async def _write(connection: Connection, send: Send) -> None:
    """Send frames; returns after the end of the subscription, behind which there would be silence."""
    while True:
        frames = await connection.outbox.take()
        text = "".join(frame.server_sent_event for frame in frames if frame.event_name not in _NOT_SENT)
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        for frame in frames:
            connection.sent(frame)
        if any(frame.event_name == "unsubscribed" for frame in frames):
            return


def _last_words(connection: Connection) -> bytes:
    """Why the stream ends, where a WebSocket would be closed with a code."""
    if not connection.closing.done():
        return b""
    match connection.closing.result():
        case CloseCode.TOKEN_EXPIRED:
            error = protocol.Error(code=ErrorCode.TOKEN_EXPIRED, message="the token or key has expired")
        case CloseCode.FORBIDDEN:
            text = "the session has ended, the key was deleted, the account was deactivated, or an admin ended this"
            error = protocol.Error(code=ErrorCode.FORBIDDEN, message=text)
        case _:
            return b""
    return message_frame(error).server_sent_event.encode()


async def client_gone(receive: Receive) -> None:
    """Returns when the client has gone away, whatever it still sends."""
    while (await receive())["type"] != "http.disconnect":
        pass
