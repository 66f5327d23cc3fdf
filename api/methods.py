"""The methods of an address, over all routes that serve it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Response
from fastapi.params import Depends
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def add_read_routes(
    router: APIRouter,
    path: str,
    handler: Callable[..., Awaitable[Response]],
    documented: dict[str, Any],
    dependencies: Sequence[Depends] = (),
) -> None:
    """Add GET, and HEAD, which is the same to all but the server below, and needs no place in the document."""
    router.add_api_route(path, handler, methods=["GET"], dependencies=dependencies, **documented)
    router.add_api_route(
        path, handler, methods=["HEAD"], dependencies=dependencies, include_in_schema=False, **documented
    )


def described_methods(routes: Sequence[BaseRoute], scope: Scope) -> dict[str, str]:
    """The headers that tell of the request's path: `Allow` (RFC 9110, 10.2.1; Starlette names the methods of one route
    only), and `Accept-Patch` (RFC 5789, 3.1) where PATCH is among them."""
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
    patches = _patches(routes, scope["path"]) if "PATCH" in found else []
    return {"Allow": ", ".join(found)} | ({"Accept-Patch": ", ".join(patches)} if patches else {})


def _patches(routes: Sequence[BaseRoute], path: str) -> list[str]:
    """The media types of the patches that an address takes, as its operation describes them."""
    for route in iter_route_contexts(routes):
        if "PATCH" in (route.methods or ()) and route.path_regex.match(path):
            return list((route.openapi_extra or {}).get("requestBody", {}).get("content", ()))
    return []
