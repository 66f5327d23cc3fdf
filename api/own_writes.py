"""Reading what one has written: the read cache must not be older than its reader's own writes."""

from __future__ import annotations

from fastapi.requests import HTTPConnection
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.services import services_of

_SAFE = ("GET", "HEAD", "OPTIONS")


def reader_of(connection: HTTPConnection) -> str:
    """The name under which somebody's reads and writes meet in the read cache: whom the rate limit counts for."""
    allowance = connection.scope.get("state", {}).get("allowance")
    return "" if allowance is None else str(allowance.key)


class OwnWrites:
    """ASGI middleware that tells the read cache of the position of each write, before the writer is told."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["method"] in _SAFE:
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        services = services_of(connection)
        names = scope["path"].split("/")
        resource = services.registry.get(names[3]) if len(names) > 3 else None
        placed = False

        async def send_and_tell(message: Message) -> None:
            nonlocal placed
            if message["type"] == "http.response.start":
                position = Headers(raw=message["headers"]).get("X-Position")
                placed = position is not None
                if position is not None:
                    services.read_cache.wrote(reader_of(connection), services.positions.decode(position))
            if not placed and resource is not None and resource.declared.cache:
                # An import writes while it answers, and a failure may have written all the same.
                services.read_cache.clear()
            await send(message)

        await self._app(scope, receive, send_and_tell)
