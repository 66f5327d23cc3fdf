"""Users as others see them, and what admins do to them."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.convertors import StringConvertor, register_url_convertor

from api import openapi
from api.bodies import JSON, MERGE_PATCH, Body, parse_body, read_json
from api.callers import AdminCaller, signed_in
from api.event_stream import signed_in_to_list
from api.methods import add_read_routes
from api.negotiation import JSON_ONLY
from api.resource_routes import ResourceRoutes, answer_with, preconditions_of
from api.services import ServicesOf
from api.settings import Settings
from documents import AuditEvent, Forms, ResourceClass, parse_user_id
from documents.models.accounts import Role


class _OtherThanMe(StringConvertor):
    regex = "(?!me$)[^/]+"


def _each_once(roles: list[Role]) -> list[Role]:
    return [role for role in get_args(Role) if role in roles]


class UserChange(Body):
    """What an admin changes of a user; what is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"roles": ["user", "moderator"]}, {"is_active": False}]})

    # The defaults are never used: None would be in the schema, and null would be accepted.
    roles: Annotated[
        list[Role],
        Field(default_factory=list, max_length=10, description="What the user may do; each role is kept once."),
        AfterValidator(_each_once),
    ]
    is_active: Annotated[bool, Field(default_factory=bool, description="Whether the user may sign in.")]


#: `/users/me` is another address, with methods of its own.
_ONE = "/{id:other_than_me}"

MODELS: list[type[BaseModel]] = [UserChange]


def user_router(resource: ResourceClass, forms: Forms, settings: Settings) -> APIRouter:
    """The routes of users, but for `/users/me`."""
    register_url_convertor("other_than_me", _OtherThanMe())
    router = APIRouter(prefix=f"/{resource.name}", tags=["Accounts"])
    reading, routes = ResourceRoutes(resource), _Routes(resource)
    docs = openapi.Operations(resource, forms, settings)
    listing, getting = [Depends(signed_in_to_list)], [Depends(signed_in), JSON_ONLY]
    add_read_routes(router, "", reading.list, docs.list_page(), listing)
    add_read_routes(router, _ONE, reading.get, docs.get(), getting)
    changing = (
        "For admins. Roles and deactivation act on requests and live sockets within a second. Deactivation ends all "
        "sessions for good; API keys are refused until the user is active again. The last admin stays."
    )
    router.add_api_route(
        _ONE,
        routes.change,
        methods=["PATCH"],
        dependencies=[JSON_ONLY],
        **_for_admins(docs.patch_with(UserChange, changing)),
    )
    router.add_api_route(_ONE, routes.delete, methods=["DELETE"], **_for_admins(docs.delete()))
    return router


def _for_admins(documented: dict[str, Any]) -> dict[str, Any]:
    conflict = openapi.error_answers(409)
    conflict[409]["description"] = "It is the last admin who can sign in."
    return openapi.by_session(documented | {"responses": documented["responses"] | conflict})


class _Routes:
    """The handlers that only admins may use."""

    def __init__(self, resource: ResourceClass) -> None:
        self._resource = resource

    async def change(self, id: str, request: Request, caller: AdminCaller, services: ServicesOf) -> Response:
        content = await read_json(request, (MERGE_PATCH, JSON), max_bytes=services.settings.max_body_bytes)
        changes = parse_body(UserChange, content).model_dump(exclude_unset=True)
        preconditions, user_id = preconditions_of(request), parse_user_id(id)
        if not changes:
            found = await services.store.get(self._resource, id, caller.principal)
            preconditions.check(found.etag)
            return answer_with(services, found)
        if changes.get("is_active") is False or "admin" not in changes.get("roles", ["admin"]):
            async with services.accounts.keeping_an_admin(user_id):
                found = await services.store.merge_patch(self._resource, id, caller.principal, changes, preconditions)
        else:
            found = await services.store.merge_patch(self._resource, id, caller.principal, changes, preconditions)
        services.note(AuditEvent.USER_CHANGED, id, by=caller.principal.user_id, **changes)
        if user_id is not None and changes.get("is_active") is False:
            # For good: a token that was stolen must not come back to life with the account.
            await services.sessions.end_all(user_id)
        return answer_with(services, found)

    async def delete(self, id: str, request: Request, caller: AdminCaller, services: ServicesOf) -> Response:
        user_id = parse_user_id(id)
        async with services.accounts.keeping_an_admin(user_id):
            position = await services.store.delete(self._resource, id, caller.principal, preconditions_of(request))
        services.note(AuditEvent.USER_DELETED, user_id, by=caller.principal.user_id)
        if user_id is not None:
            await services.sessions.end_all(user_id)
            await services.api_keys.delete_all(user_id)
        return Response(status_code=204, headers={"X-Position": services.positions.encode(position)})
