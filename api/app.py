"""The ASGI application, put together from services."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware

from api import account_routes, health, openapi, pages, websocket
from api.middleware import Envelope
from api.problems import install_problems
from api.resource_routes import resource_router
from api.services import Services

PREFIX = "/api/v1"


def create_app(services: Services) -> FastAPI:
    """The application that serves `services`. Does not start or stop them."""
    app = FastAPI(
        title="Headwater",
        version=_version(),
        summary="A live document API.",
        description=(
            "Documents over REST, and every committed change pushed to those who may see it. Live: the WebSocket at "
            f"`{PREFIX}/ws`, or any list with `Accept: text/event-stream`."
        ),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    install_problems(app)
    router = APIRouter(prefix=PREFIX)
    router.include_router(account_routes.router)
    router.include_router(websocket.router)
    models: list[type[BaseModel]] = [*account_routes.MODELS]
    for resource in services.registry:
        if resource.declared.generic:
            forms = services.store.forms(resource)
            router.include_router(resource_router(resource, services))
            models += [forms.create, forms.update, forms.public, openapi.page_model(resource, forms)]
    app.include_router(router)
    app.include_router(health.router)
    app.include_router(pages.router)
    pages.mount_assets(app)
    openapi.install_openapi(app, models)
    if services.settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(services.settings.allowed_origins),
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match", "If-None-Match", "X-Request-ID"],
            expose_headers=["ETag", "Location", "Link", "X-Position", "X-Request-ID", "X-Total-Count"],
            max_age=600,
        )
    app.add_middleware(Envelope)
    return app


def _version() -> str:
    try:
        return version("headwater")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
