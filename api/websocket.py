"""The WebSocket endpoint: the transport of `headwater.v1`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from api.addresses import address_of
from api.callers import caller_of_key, caller_of_live, caller_of_token
from api.problems import Problem
from api.queries import select_fields
from api.services import Caller, Services, services_of
from documents import (
    DatabaseAway,
    InvalidInput,
    Position,
    ResourceClass,
    parse_filter,
    parse_sort,
    rfc3339,
)
from realtime import Origin, Refused, SubscribeRequest, Transport, ViewQuery, protocol
from realtime.protocol import CloseCode, ErrorCode

logger = logging.getLogger("headwater.websocket")
router = APIRouter()

FLUSH_SECONDS = 2.0


class _Close(Exception):
    """Close the socket with this code."""

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code)
        self.code = code


@router.websocket("/ws")
async def live(websocket: WebSocket) -> None:
    """Serve one connection of `headwater.v1` until either side closes it."""
    services = services_of(websocket)
    if not _origin_allowed(websocket, services):
        # Before the handshake: a page of another site learns nothing but 403.
        await websocket.close()
        return
    offered = websocket.scope.get("subprotocols", [])
    # A browser that offers subprotocols and gets none back reports a failed handshake and no close code, so an unknown
    # one is accepted in order to be refused.
    known = protocol.SUBPROTOCOL if protocol.SUBPROTOCOL in offered else next(iter(offered), None)
    await websocket.accept(subprotocol=known)
    try:
        if offered and protocol.SUBPROTOCOL not in offered:
            raise _Close(CloseCode.UNKNOWN_SUBPROTOCOL)
        try:
            caller = await caller_of_live(websocket)
        except Problem:
            raise _Close(CloseCode.AUTHENTICATION_FAILED) from None
        except DatabaseAway:
            raise _Close(CloseCode.SERVICE_RESTART) from None
        await _Socket(websocket, services, caller).run()
    except _Close as close:
        services.manager.closed[close.code] += 1
        await _close(websocket, close.code)


def _origin_allowed(websocket: WebSocket, services: Services) -> bool:
    origin = websocket.headers.get("origin")
    if origin is None:  # not a browser
        return True
    allowed = services.settings.allowed_origins
    if origin in allowed or "*" in allowed:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:  # `http://[`
        return False
    return parts.scheme in ("http", "https") and parts.netloc == websocket.headers.get("host")


async def _close(websocket: WebSocket, code: CloseCode) -> None:
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        if websocket.application_state is not WebSocketState.DISCONNECTED:
            await websocket.close(code)


class _Socket:
    """One open socket: a reader of the client's messages and a writer of the outbox."""

    def __init__(self, websocket: WebSocket, services: Services, caller: Caller) -> None:
        self._websocket = websocket
        self._services = services
        origin = Origin(Transport.WEBSOCKET, address_of(websocket))
        self._connection = services.manager.connect(caller.principal, origin)
        websocket.scope["state"]["connection"] = self._connection
        self._allowance = _Allowance()
        if caller.credential is not None:
            self._connection.credential = caller.credential
            self._connection.watch_expiry(caller.expires_at)

    async def run(self) -> None:
        """Run until the client leaves or the connection is to be closed; raises _Close with the code."""
        connection = self._connection
        connection.send_message(protocol.Welcome(connection=connection.id))
        reading = asyncio.create_task(self._read(), name=f"reader {connection.id}")
        writing = asyncio.create_task(self._write(), name=f"writer {connection.id}")
        try:
            ends: set[asyncio.Future[Any]] = {reading, writing, connection.closing}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            code = await self._code(reading, writing)
            if code is not None:
                if code is not CloseCode.SLOW_CONSUMER and not writing.done():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(FLUSH_SECONDS):
                            await connection.outbox.below(0)
                raise _Close(code)
        finally:
            reading.cancel()
            writing.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            await asyncio.shield(connection.end())

    async def _code(self, reading: asyncio.Task[None], writing: asyncio.Task[None]) -> CloseCode | None:
        """Why the connection ends; None when the client has left."""
        if self._connection.closing.done():
            return self._connection.closing.result()
        for task in (reading, writing):
            if task.done() and (error := task.exception()) is not None:
                if isinstance(error, _Close):
                    return error.code
                if not isinstance(error, WebSocketDisconnect | RuntimeError | OSError):
                    logger.error("a socket failed", exc_info=error)
                    return CloseCode.SERVICE_RESTART
        return None

    async def _write(self) -> None:
        outbox = self._connection.outbox
        while True:
            for frame in await outbox.take():
                # Waits while the client does not read. What is left counts until it is taken.
                await self._websocket.send({"type": "websocket.send", "text": frame.text})
                self._connection.sent(frame)

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if not self._allowance.take():
                raise _Close(CloseCode.TOO_MANY_MESSAGES)
            if text is None or len(text.encode()) > protocol.MAX_MESSAGE_BYTES:
                raise _Close(CloseCode.BAD_MESSAGE)
            await self._handle(text)

    async def _handle(self, text: str) -> None:
        try:
            message = protocol.parse_client_message(text)
        except protocol.BadMessage as error:
            self._refuse(error.id, ErrorCode.BAD_MESSAGE, str(error))
            return
        try:
            match message:
                case protocol.Auth():
                    await self._authenticate(message)
                case protocol.Subscribe():
                    self._subscribe(message)
                case protocol.Unsubscribe():
                    await self._connection.unsubscribe(message.id, "requested")
                case protocol.Ping():
                    self._ping(message)
        except Refused as refused:
            self._refuse(message.id if not isinstance(message, protocol.Auth) else None, refused.code, str(refused))

    def _refuse(self, id: str | None, code: ErrorCode, text: str) -> None:
        self._connection.send_message(protocol.Error(id=id, code=code, message=text))

    async def _authenticate(self, message: protocol.Auth) -> None:
        try:
            if message.api_key:
                caller = await caller_of_key(self._services, message.api_key)
            else:
                caller = await caller_of_token(self._services, message.token)
        except Problem:
            raise _Close(CloseCode.AUTHENTICATION_FAILED) from None
        except DatabaseAway:
            raise _Close(CloseCode.SERVICE_RESTART) from None
        present = self._connection.principal
        if caller.credential is None or (present.signed_in and present.user_id != caller.principal.user_id):
            raise _Close(CloseCode.AUTHENTICATION_FAILED)
        principal = caller.principal
        user = protocol.User(
            id=str(principal.user_id), username=principal.username or "", roles=sorted(principal.roles)
        )
        expires_at = None if caller.expires_at is None else rfc3339(caller.expires_at)
        self._connection.send_message(protocol.Authenticated(user=user, expires_at=expires_at))
        self._connection.authenticate(principal, caller.credential, caller.expires_at)

    def _subscribe(self, message: protocol.Subscribe) -> None:
        resource = self._services.registry.get(message.resource)
        if resource is None or not resource.declared.live:
            raise Refused(ErrorCode.UNKNOWN_RESOURCE, f"resource: there is no resource {message.resource!r}")
        try:
            self._connection.subscribe(self._parse(message, resource))
        except InvalidInput as error:
            raise Refused(ErrorCode.BAD_QUERY, str(error)) from None

    def _parse(self, message: protocol.Subscribe, resource: ResourceClass) -> SubscribeRequest:
        visible = resource.visible(self._connection.principal.roles)
        most = self._services.settings.snapshot_max
        if message.limit > most:
            raise InvalidInput.at("limit", msg=f"at most {most}", type="less_than_equal")
        fields = None if message.fields is None else select_fields(message.fields, visible, loc=("fields",))
        return SubscribeRequest(
            id=message.id,
            query=ViewQuery(resource, parse_filter(message.filter, visible, loc=("filter",)), fields),
            sort=parse_sort(message.sort, visible, loc=("sort",)),
            limit=message.limit,
            snapshot=message.snapshot,
            since=self._since(message.since),
        )

    def _since(self, since: protocol.Since | None) -> tuple[str, Position] | None:
        if since is None:
            return None
        try:
            return since.view, self._services.positions.decode(since.position)
        except InvalidInput:
            # Of another database, or nobody's: nothing can be recovered from it, and a snapshot follows.
            return since.view, Position.ZERO

    def _ping(self, message: protocol.Ping) -> None:
        if message.position is None:
            self._connection.ping(message.id, None)
            return
        try:
            position = self._services.positions.decode(message.position)
        except InvalidInput as error:
            raise Refused(ErrorCode.BAD_POSITION, str(error)) from None
        self._connection.ping(message.id, position)


class _Allowance:
    """A token bucket for a client's messages."""

    def __init__(self) -> None:
        self._left = float(protocol.MESSAGE_BURST)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Whether one more message is allowed now."""
        now = time.monotonic()
        self._left = min(protocol.MESSAGE_BURST, self._left + (now - self._at) * protocol.MESSAGES_PER_SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
