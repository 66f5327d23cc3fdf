"""API keys: made, listed and deleted by people who are signed in, never by a key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field, create_model

from api import openapi
from api.bodies import JSON, read_json
from api.callers import SessionCaller, by_session
from api.idempotency import KEY
from api.methods import add_read_routes
from api.negotiation import JSON_ONLY
from api.resource_routes import ResourceRoutes
from api.services import ServicesOf
from api.session_routes import NO_STORE
from api.settings import Settings
from documents import AuditEvent, Forms, InvalidInput, ResourceClass, encode_json, parse_user_id

PATH = "/api-keys"


def issued_model(forms: Forms) -> type[BaseModel]:
    """The answer that shows a key, once."""
    key: Any = (str, Field(description="Send it as `X-API-Key`. It is not shown again.", examples=["hw_aRo1Yl…"]))
    return create_model(
        "IssuedApiKey",
        __base__=forms.public,
        __doc__="A new API key.",
        __cls_kwargs__={"json_schema_extra": None},
        key=key,
    )


def key_router(resource: ResourceClass, forms: Forms, settings: Settings) -> APIRouter:
    """The routes of API keys."""
    router = APIRouter(prefix=PATH, tags=["Accounts"], dependencies=[Depends(by_session)])
    reading = ResourceRoutes(resource)
    docs = openapi.Operations(resource, forms, settings)
    issuing = openapi.operation(
        "create_api_keys",
        "Create an API key",
        "For a program that acts in your name, within `scopes`: `posts:read`, or `posts:write`, which includes to "
        "read. The key is in this answer and nowhere else. `expires_at` is in the future, or absent. At most 100 keys. "
        "Takes no `Idempotency-Key`, because answers with secrets are not kept.",
        201,
        issued_model(forms),
        *(400, 401, 409, 413, 415, 422, 503),
        body={JSON: forms.create},
    )
    issuing["responses"][409]["description"] = "The user has 100 keys already."
    router.add_api_route("", create, methods=["POST"], dependencies=[JSON_ONLY], **openapi.by_session(issuing))
    add_read_routes(router, "", reading.list, openapi.by_session(docs.list_page()))
    add_read_routes(router, "/{id}", reading.get, openapi.by_session(docs.get()), [JSON_ONLY])
    router.add_api_route("/{id}", reading.delete, methods=["DELETE"], **openapi.by_session(docs.delete()))
    return router


async def create(request: Request, caller: SessionCaller, services: ServicesOf) -> Response:
    if KEY in request.headers:
        msg = "an answer that shows a secret is not kept, so this request takes no key"
        raise InvalidInput.at("header", KEY, msg=msg, type="idempotency_key")
    content = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)
    found, key = await services.api_keys.create(caller.principal, content)
    user_id, key_id = caller.principal.user_id, found.document["id"]
    # `updated_by` names keys; whose one was that is gone must still be told.
    services.note(AuditEvent.KEY_CREATED, user_id, by=user_id, key_id=parse_user_id(key_id))
    headers = NO_STORE | {
        "Location": f"{request.scope['path']}/{found.document['id']}",
        "X-Position": services.positions.encode(found.position),
    }
    return Response(encode_json(found.document | {"key": key}), status_code=201, media_type=JSON, headers=headers)
