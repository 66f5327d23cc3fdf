"""The pages: links at `/`, Swagger UI at `/docs`, ReDoc at `/redoc`. No CDN and no inline script.

The assets of Swagger UI and ReDoc come from the package `fastapi-standalone-docs`; its own pages have inline scripts,
so ours take their place.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from starlette.staticfiles import StaticFiles

import web

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


def _page(name: str, policy: str) -> HTMLResponse:
    return HTMLResponse((_WEB / name).read_text("utf-8"), headers={"Content-Security-Policy": policy})


@router.api_route("/", methods=["GET", "HEAD"])
async def index() -> HTMLResponse:
    """What is here."""
    return _page("index.html", _PAGE_POLICY)


@router.api_route("/reset-password", methods=["GET", "HEAD"])
async def reset_password() -> HTMLResponse:
    """Where a mail's link leads: asks for a new password. The token is in the fragment, which is not sent here."""
    return _page("reset-password.html", _PAGE_POLICY)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def swagger() -> HTMLResponse:
    """Swagger UI."""
    return _page("docs.html", _VIEWER_POLICY)


@router.api_route("/redoc", methods=["GET", "HEAD"])
async def redoc() -> HTMLResponse:
    """ReDoc."""
    return _page("redoc.html", _VIEWER_POLICY)


@router.api_route("/favicon.ico", methods=["GET", "HEAD"])
async def favicon() -> FileResponse:
    """The icon that browsers ask for unasked."""
    return FileResponse(_WEB / "static" / "favicon.svg", media_type="image/svg+xml")


def mount_assets(app: FastAPI) -> None:
    """Serve the pages' scripts and styles under /static."""
    viewers = Path(str(files("fastapi_standalone_docs"))) / "static"
    app.mount("/static/swagger", StaticFiles(directory=viewers / "swagger"))
    app.mount("/static/redoc", StaticFiles(directory=viewers / "redoc"))
    app.mount("/static", StaticFiles(directory=_WEB / "static"))
