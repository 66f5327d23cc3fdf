"""The ASGI application, put together from services."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from api import (
    account_routes,
    admin_routes,
    bulk_routes,
    file_routes,
    health,
    key_routes,
    metric_routes,
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
from api.asyncapi import asyncapi_document
from api.compression import Compression
from api.hosts import TLSRedirect, TrustedHosts
from api.middleware import Envelope, LastResort
from api.negotiation import JSON_ONLY
from api.origins import Origins
from api.own_writes import OwnWrites
from api.parameters import KNOWN_PARAMETERS
from api.problems import install_problems
from api.rates import RateLimited
from api.request_log import RequestLog, Routed
from api.resource_routes import resource_router
from api.services import Services
from api.settings import Settings
from api.stalls import StalledBodies
from api.tracing import TraceIds, telemetry
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


def live_document(settings: Settings, registry: Registry) -> dict[str, Any]:
    """The AsyncAPI document of an application, which needs no database."""
    return asyncapi_document(registry, address=settings.address, version=_version(), prefix=PREFIX)


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
        telemetry=telemetry(bool(settings.otlp_endpoint)),
    )
    install_problems(app)
    router = APIRouter(prefix=PREFIX, dependencies=[KNOWN_PARAMETERS])
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
    router.include_router(admin_routes.router, dependencies=[JSON_ONLY])
    router.include_router(schema_routes.schema_router(registry))
    models: list[type[BaseModel]] = [
        *session_routes.MODELS,
        *account_routes.models(settings),
        *password_routes.models(settings),
        *user_routes.MODELS,
        *ticket_routes.MODELS,
        *admin_routes.MODELS,
        *schema_routes.MODELS,
    ]
    models += [user_forms.public, openapi.page_model(users, user_forms)]
    models += [key_forms.create, key_forms.public, openapi.page_model(keys, key_forms)]
    models += [key_routes.issued_model(key_forms)]
    files = registry["files"]
    file_router, file_models = file_routes.file_router(files, forms_of(files), settings)
    router.include_router(file_router)
    models += file_models
    for resource in registry:
        if resource.declared.generic:
            forms = forms_of(resource)
            router.include_router(resource_router(resource, forms, settings))
            router.include_router(action_router(resource, openapi.Operations(resource, forms, settings)))
            models += [forms.create, forms.update, forms.public, openapi.page_model(resource, forms)]
            models += openapi.aggregate_models(resource)
            models += [action.form for action in resource.actions.values()]
    models += [*openapi.PATCH_MODELS, *bulk_routes.MODELS]
    for other in (router, *more):
        app.include_router(other)
    app.include_router(websocket.router, prefix=PREFIX)
    app.include_router(health.router)
    app.include_router(metric_routes.router)
    app.include_router(pages.router)
    app.include_router(pages.asyncapi_router(lambda: live_document(settings, registry)))
    pages.mount_assets(app)
    # Classes may share the form of an action.
    openapi.install_openapi(app, list(dict.fromkeys(models)), f"{PREFIX}/auth/login")
    _surround(app, settings)
    return app


def _surround(app: FastAPI, settings: Settings) -> None:
    """Put the middleware around the routes. The one that is added last is the outermost.

    From the outside: every answer gets the envelope's headers, whoever gives it, and is counted and measured. Requests
    for other hosts, and without TLS, end before anything reads them. What pages of other origins may read includes
    errors, so all that follows is inside of that: unknown errors become answers, answers are compressed, then it is
    found out who is calling, and counted; a wrong version counts, too. The read cache is told what was written.
    Next to those who read bodies is who waits for them, and next to the router who tells which route it took.
    """
    app.add_middleware(StalledBodies)
    app.add_middleware(Routed)
    app.add_middleware(OwnWrites)
    app.add_middleware(VersionCheck)
    app.add_middleware(RateLimited, prefix="/api/")
    app.add_middleware(Compression)
    app.add_middleware(LastResort)
    if settings.allowed_origins:
        app.add_middleware(Origins, allowed=settings.allowed_origins)
    if settings.https_redirect:
        app.add_middleware(TLSRedirect)
    if settings.trusted_hosts:
        guarded = bool(settings.metrics_token.get_secret_value())
        app.add_middleware(TrustedHosts, patterns=settings.trusted_hosts, metrics_guarded=guarded)
    app.add_middleware(RequestLog)
    if settings.otlp_endpoint:
        app.add_middleware(TraceIds)
    app.add_middleware(Envelope)


def _version() -> str:
    try:
        return version("headwater")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
