"""Requests whose body stops arriving."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem

#: How long the next part of a body may take. Connections are few, and somebody who sends half a body would keep one.
PART_SECONDS = 60.0


class StalledBodies:
    """ASGI middleware next to the routes that answers 408 (RFC 9110, 15.5.9) when no part of a body comes for long.

    Where the answer has begun, as an import's has, it breaks off as if the client had left. Both close the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answering, complete = False, False

        async def receive_in_time() -> Message:
            nonlocal complete
            if complete:
                # All that can come now is that the client leaves, and there is no hurry with that.
                return await receive()
            try:
                async with asyncio.timeout(PART_SECONDS):
                    message = await receive()
            except TimeoutError:
                if answering:
                    return {"type": "http.disconnect"}
                detail = f"No more of the body has come for {PART_SECONDS:.0f} seconds."
                raise Problem(408, detail, headers={"Connection": "close"}) from None
            complete = not message.get("more_body", False)
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        await self._app(scope, receive_in_time, send_and_note)
