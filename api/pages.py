"""The pages: the dashboard at `/`, Swagger UI at `/docs`, ReDoc at `/redoc`, the live protocol at `/docs/live`.

No CDN, no inline script, and a content security policy for each page. All of it is checked again at each load
(`no-cache`) and answered with 304 while it is the same, so that a browser never mixes the scripts of two versions for
longer than a load.

The assets of Swagger UI and ReDoc come from the package `fastapi-standalone-docs`; its own pages have inline scripts,
so ours take their place.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import web
from api.bodies import JSON
from api.resource_routes import preconditions_of
from documents import encode_json

router = APIRouter(include_in_schema=False)

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
#: Both viewers set styles from script, and ReDoc searches in a worker made from a blob.
_VIEWER_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self' data:; worker-src blob:; base-uri 'none'; frame-ancestors 'none'"
)
_WEB = Path(str(files(web)))
_REVALIDATED = "no-cache"


def _answer(request: Request, content: bytes, media_type: str, headers: dict[str, str]) -> Response:
    etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": _REVALIDATED, **headers}
    if preconditions_of(request).is_known(etag):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


def _page(request: Request, name: str, policy: str) -> Response:
    content = (_WEB / name).read_bytes()
    return _answer(request, content, "text/html; charset=utf-8", {"Content-Security-Policy": policy})


@router.api_route("/", methods=["GET", "HEAD"])
async def dashboard(request: Request) -> Response:
    """The dashboard. It is a client like any other: all it shows comes from the API."""
    return _page(request, "index.html", _PAGE_POLICY)


@router.api_route("/reset-password", methods=["GET", "HEAD"])
async def reset_password(request: Request) -> Response:
    """Where a mail's link leads: asks for a new password. The token is in the fragment, which is not sent here."""
    return _page(request, "reset-password.html", _PAGE_POLICY)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def swagger(request: Request) -> Response:
    """Swagger UI."""
    return _page(request, "docs.html", _VIEWER_POLICY)


@router.api_route("/docs/live", methods=["GET", "HEAD"])
async def live_docs(request: Request) -> Response:
    """The live protocol, drawn from `/asyncapi.json`."""
    return _page(request, "live.html", _PAGE_POLICY)


@router.api_route("/redoc", methods=["GET", "HEAD"])
async def redoc(request: Request) -> Response:
    """ReDoc."""
    return _page(request, "redoc.html", _VIEWER_POLICY)


@router.api_route("/favicon.ico", methods=["GET", "HEAD"])
async def favicon(request: Request) -> Response:
    """The icon that browsers ask for unasked."""
    return _answer(request, (_WEB / "static" / "favicon.svg").read_bytes(), "image/svg+xml", {})


@router.api_route("/client/headwater.js", methods=["GET", "HEAD"])
async def client(request: Request) -> Response:
    """The browser client, for the dashboard and for any other page."""
    # Deno, and editors that load modules from URLs, find the types by this header.
    types = {"X-TypeScript-Types": "./headwater.d.ts"}
    return _answer(request, (_WEB / "headwater.js").read_bytes(), "text/javascript; charset=utf-8", types)


@router.api_route("/client/headwater.d.ts", methods=["GET", "HEAD"])
async def client_types(request: Request) -> Response:
    """The client's types."""
    return _answer(request, (_WEB / "headwater.d.ts").read_bytes(), "application/typescript; charset=utf-8", {})


def asyncapi_router(describe: Callable[[], dict[str, Any]]) -> APIRouter:
    """`/asyncapi.json`, described when it is first asked for."""
    described = APIRouter(include_in_schema=False)

    @functools.cache
    def content() -> bytes:
        return encode_json(describe())

    async def asyncapi(request: Request) -> Response:
        return _answer(request, content(), JSON, {})

    described.add_api_route("/asyncapi.json", asyncapi, methods=["GET", "HEAD"])
    return described


class _Assets(StaticFiles):
    """Files with the headers of pages."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        answer = super().file_response(full_path, stat_result, scope, status_code)
        answer.headers["Cache-Control"] = _REVALIDATED
        return answer


def mount_assets(app: FastAPI) -> None:
    """Serve the pages' scripts and styles under /static."""
    viewers = Path(str(files("fastapi_standalone_docs"))) / "static"
    app.mount("/static/swagger", _Assets(directory=viewers / "swagger"))
    app.mount("/static/redoc", _Assets(directory=viewers / "redoc"))
    app.mount("/static", _Assets(directory=_WEB / "static"))
