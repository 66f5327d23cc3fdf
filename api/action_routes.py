"""Custom actions: `POST /{collection}/{id}/{action}` for each action that a class declares."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request, Response

from api import letters, openapi
from api.bodies import JSON, read_json
from api.callers import CallerOf, challenge_unless_signed_in
from api.idempotency import Attempt, once
from api.mail import Letter
from api.negotiation import JSON_ONLY
from api.resource_routes import answer_with, preconditions_of
from api.services import Caller, Services, ServicesOf
from documents import Action, Forbidden, Notice, Performed, Principal, ResourceClass, parse_user_id, perform
from documents import principal_from as active_principal


def action_router(resource: ResourceClass, docs: openapi.Operations) -> APIRouter:
    """The routes of a class's actions."""
    router = APIRouter(prefix=f"/{resource.name}", tags=[resource.label])
    for action in resource.actions.values():
        route = _ActionRoute(resource, action)
        path = f"/{{id}}/{action.name}"
        router.add_api_route(path, route.act, methods=["POST"], dependencies=[JSON_ONLY], **docs.action(action))
    return router


class _ActionRoute:
    """The handler of one action."""

    def __init__(self, resource: ResourceClass, action: Action) -> None:
        self._resource = resource
        self._action = action

    async def act(self, id: str, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        body = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)
        preconditions = preconditions_of(request)

        async def run(attempt: Attempt) -> Response:
            try:
                found, performed = await perform(
                    services.store, self._resource, self._action, id, caller.principal, body, preconditions
                )
            except Forbidden:
                challenge_unless_signed_in(caller)
                raise
            attempt.shows(self._resource.name, performed.before["_id"])
            self._follow_up(caller, services, performed)
            return answer_with(services, found)

        return await once(request, caller, services, body, run)

    def _follow_up(self, caller: Caller, services: Services, performed: Performed) -> None:
        action = self._action
        concerned = parse_user_id(str(performed.before.get(action.concerns))) if action.concerns else None
        if action.audited:
            details = performed.form.model_dump(mode="json") | {"document_id": performed.before["_id"]}
            event = f"{self._resource.name}.{action.name}"
            services.note(event, concerned, by=caller.principal.user_id, **details)
        if action.notice is None or concerned is None or concerned == caller.principal.user_id:
            return
        notice = action.notice(performed)
        if notice is not None:
            services.mail.send(action.name, partial(_letter, services, Principal(concerned), notice))


async def _letter(services: Services, concerned: Principal, notice: Notice) -> Letter | None:
    user = await services.accounts.user(concerned)
    if user is None or active_principal(user) is None:
        return None
    return letters.notice(str(user.get("email", "")), notice.subject, notice.lines, services.settings.address)
