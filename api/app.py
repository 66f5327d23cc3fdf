"""The ASGI application, put together from services."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware

from api import (
    account_routes,
    health,
    key_routes,
    openapi,
    pages,
    password_routes,
    schema_routes,
    session_routes,
    ticket_routes,
    user_routes,
    websocket,
)
from api.action_routes import action_router
from api.middleware import Envelope
from api.negotiation import JSON_ONLY
from api.problems import install_problems
from api.resource_routes import resource_router
from api.services import Services
from api.settings import Settings
from api.versions import VersionCheck
from documents import Registry, forms_of

PREFIX = "/api/v1"


def create_app(services: Services, *more: APIRouter) -> FastAPI:
    """The application that serves `services`. Does not start or stop them.

    `more` are routers of other versions, each with its whole prefix (`/api/v2/posts`); see docs/versions.md.
    """
    app = _assemble(services.settings, services.registry, *more)
    app.state.services = services
    return app


def openapi_document(settings: Settings, registry: Registry) -> dict[str, Any]:
    """The OpenAPI document of an application, which needs no database."""
    return _assemble(settings, registry).openapi()


def _assemble(settings: Settings, registry: Registry, *more: APIRouter) -> FastAPI:
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
    install_problems(app)
    router = APIRouter(prefix=PREFIX)
    router.include_router(session_routes.router, dependencies=[JSON_ONLY])
    router.include_router(account_routes.router, dependencies=[JSON_ONLY])
    router.include_router(password_routes.router, dependencies=[JSON_ONLY])
    users = registry["users"]
    user_forms = forms_of(users)
    router.include_router(user_routes.user_router(users, user_forms, settings))
    keys = registry["api_keys"]
    key_forms = forms_of(keys)
    router.include_router(key_routes.key_router(keys, key_forms, settings))
    router.include_router(ticket_routes.router, dependencies=[JSON_ONLY])
    router.include_router(schema_routes.schema_router(registry))
    router.include_router(websocket.router)
    models: list[type[BaseModel]] = [
        *session_routes.MODELS,
        *account_routes.models(settings),
        *password_routes.models(settings),
        *user_routes.MODELS,
        *ticket_routes.MODELS,
        *schema_routes.MODELS,
    ]
    models += [user_forms.public, openapi.page_model(users, user_forms)]
    models += [key_forms.create, key_forms.public, openapi.page_model(keys, key_forms)]
    models += [key_routes.issued_model(key_forms)]
    for resource in registry:
        if resource.declared.generic:
            forms = forms_of(resource)
            router.include_router(resource_router(resource, forms, settings))
            router.include_router(action_router(resource, openapi.Operations(resource, forms, settings)))
            models += [forms.create, forms.update, forms.public, openapi.page_model(resource, forms)]
            models += openapi.aggregate_models(resource)
            models += [action.form for action in resource.actions.values()]
    models += openapi.PATCH_MODELS
    for other in (router, *more):
        app.include_router(other)
    app.include_router(health.router)
    app.include_router(pages.router)
    pages.mount_assets(app)
    # Classes may share the form of an action.
    openapi.install_openapi(app, list(dict.fromkeys(models)), f"{PREFIX}/auth/login")
    app.add_middleware(VersionCheck)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.allowed_origins),
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=[
                *("Authorization", "X-API-Key", "Content-Type", "If-Match", "If-None-Match", "X-Request-ID"),
                *("Idempotency-Key", "X-API-Version"),
            ],
            expose_headers=[
                *("ETag", "Location", "Link", "X-Position", "X-Request-ID", "X-Total-Count"),
                *("Idempotency-Replayed", "Retry-After"),
            ],
            max_age=600,
        )
    app.add_middleware(Envelope)
    return app


def _version() -> str:
    try:
        return version("headwater")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
