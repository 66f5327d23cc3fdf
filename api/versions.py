"""Versions of the API: one in each path, and `X-API-Version` for clients that say which one they were made for."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import Problem, problem_response
from documents import Fault

HEADER = "X-API-Version"

_PATH = re.compile(r"/api/v([1-9]\d*)(?:/|$)")


def version_of(path: str) -> str | None:
    """The version that a path belongs to; None outside the API."""
    found = _PATH.match(path)
    return found.group(1) if found else None


class VersionCheck:
    """ASGI middleware that refuses requests whose `X-API-Version` is not the version of their path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and (version := version_of(scope["path"])) is not None:
            asked = Headers(scope=scope).getlist(HEADER)
            if [other for other in asked if other != version]:
                place = Fault(("header", HEADER), f"`{version}` is expected at this address", "version")
                problem = Problem(400, f"This address has version {version} of the API.", errors=[place])
                request_id = scope.get("state", {}).get("request_id", "")
                await problem_response(problem, path=scope["path"], request_id=request_id)(scope, receive, send)
                return
        await self._app(scope, receive, send)
