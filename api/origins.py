"""What pages of other sites may do: Cross-Origin Resource Sharing (WHATWG Fetch, 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import Problem, problem_answer

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
#: What a client sends beyond what a page may always send.
_SENT = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Last-Event-ID",
    "Range",
    "X-API-Key",
    "X-API-Version",
    "X-Request-ID",
)
#: What a client reads beyond what a page may always read.
_ANSWERED = (
    "Accept-Patch",
    "Accept-Ranges",
    "Allow",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Location",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "WWW-Authenticate",
    "X-API-Version",
    "X-Position",
    "X-Request-ID",
    "X-Total-Count",
)
PREFLIGHT_SECONDS = 600


class Origins(CORSMiddleware):
    """Starlette's middleware with our lists, without cookies, and with refusals in our one shape of errors."""

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=tuple(allowed),
            allow_methods=_METHODS,
            allow_headers=_SENT,
            expose_headers=_ANSWERED,
            max_age=PREFLIGHT_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        headers = Headers(scope=scope) if scope["type"] == "http" and scope["method"] == "OPTIONS" else Headers()
        if "origin" not in headers or "access-control-request-method" not in headers:
            await super().__call__(scope, receive, send)
            return
        answer = self.preflight_response(request_headers=headers)
        described = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        if answer.status_code == 200:
            await Response(status_code=204, headers=described)(scope, receive, send)
            return
        detail = "The origin, method or headers that the page asks for are not allowed."
        await problem_answer(Problem(400, detail, headers=described), scope)(scope, receive, send)
