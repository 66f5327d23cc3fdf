"""What every answer has: a request id and security headers; and the one place where unknown errors end."""

from __future__ import annotations

import logging
import re
import secrets

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem, problem_answer

logger = logging.getLogger("headwater.api")

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

#: Documents of the API are data and never pages, so nothing may be loaded or framed from them.
API_POLICY = "default-src 'none'; frame-ancestors 'none'"

_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Envelope:
    """ASGI middleware around everything: whatever answers, the answer has these headers.

    Takes `X-Request-ID` from the request when it is sane (8 to 64 letters, digits, `._-`), else makes one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            # A handshake that is refused is an answer, too.
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", API_POLICY)
                if scope["scheme"] in ("https", "wss"):
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
                if (varies := headers.get("vary")) is not None:
                    # Each layer has added what it looked at, and some looked at the same.
                    headers["Vary"] = ", ".join(dict.fromkeys(name.strip() for name in varies.split(",")))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, send_with_headers)


class LastResort:
    """ASGI middleware around the routes: answers errors of no known kind with 500, and logs them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_tell(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_tell)
        except ClientDisconnect:
            logger.debug("%s %s: the client left before it had sent its body", scope["method"], scope["path"])
        except Exception:
            # The one place that sees errors of no known kind: whatever was not logged here would be lost.
            request_id = scope.get("state", {}).get("request_id")
            logger.exception("%s %s failed (request %s)", scope["method"], scope["path"], request_id)
            if started:
                # The head of another answer was sent. The server ends the connection when the answer is incomplete.
                return
            await problem_answer(Problem(500, "Something went wrong on the server."), scope)(scope, receive, send)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if _SANE_ID.fullmatch(text):
                return str(text)
            break
    return secrets.token_hex(12)
