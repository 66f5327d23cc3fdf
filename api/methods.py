"""The methods of an address, over all routes that serve it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def allowed_methods(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """The value of `Allow` (RFC 9110, 10.2.1) for the request's path. Starlette names those of one route only."""
    # The scope as it came: a mount has changed it on the way.
    asked: dict[str, Any] = {"type": "http", "path": scope["path"], "root_path": scope.get("app_root_path", "")}
    found = []
    for method in _METHODS:
        for route in routes:
            match, _ = route.matches({**asked, "method": method, "headers": []})
            if match is Match.FULL:
                if not isinstance(route, Mount) or method in ("GET", "HEAD"):
                    found.append(method)
                break
    return ", ".join(found)
