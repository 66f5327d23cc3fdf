"""A forgotten password: asking for a mail, and setting a new one with the token in it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import letters, openapi
from api.addresses import address_of
from api.bodies import JSON, Body, parse_body, read_json
from api.callers import without_key
from api.mail import Letter
from api.passwords import refuse_common, with_password_limits
from api.services import Services, ServicesOf
from api.session_routes import NO_STORE
from api.settings import Settings
from documents import RESET_LIFETIME, AuditEvent, ResetRefused

router = APIRouter(dependencies=[Depends(without_key)])


class ForgottenPassword(Body):
    """Whose password is forgotten."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "mara@example.org"}]})

    # Not an EmailStr: whatever text it is, the answer is the same.
    email: Annotated[str, Field(min_length=1, max_length=254, description="The address of the account.")]


class PasswordReset(Body):
    """A new password, and the token from the mail."""

    token: Annotated[str, Field(min_length=1, max_length=512)]
    new_password: Annotated[str, Field(description="Its length is a setting of the server.")]


def models(settings: Settings) -> list[type[BaseModel]]:
    """The bodies of these routes, as the settings make them."""
    return [ForgottenPassword, _password_reset(settings)]


def _password_reset(settings: Settings) -> type[PasswordReset]:
    return with_password_limits(PasswordReset, settings.password_min_length, settings.password_max_length)


@router.post(
    "/auth/password/forgot",
    **openapi.operation(
        "forgot_password",
        "Ask for a mail that resets the password",
        "The answer is the same whether there is such an account or not. The mail's token is good for one reset within "
        "30 minutes; asking again makes the one before it void. No more than three mails in 30 minutes are sent.",
        204,
        None,
        *(400, 403, 413, 415, 422, 429, 503),
        body={JSON: ForgottenPassword},
    ),
)
async def forgot_password(request: Request, services: ServicesOf) -> Response:
    content = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)
    email = parse_body(ForgottenPassword, content).email
    await services.throttle.spend("password_mail", address_of(request))
    # All that differs between an address that is known and one that is not happens after the answer.
    services.mail.send("password_reset", partial(_letter, services, email))
    return Response(status_code=204, headers=NO_STORE)


async def _letter(services: Services, email: str) -> Letter | None:
    ticket = await services.password_resets.request(email)
    if ticket is None:
        return None
    minutes = int(RESET_LIFETIME.total_seconds()) // 60
    return letters.password_reset(ticket.email, services.settings.address, ticket.token, minutes)


@router.post(
    "/auth/password/reset",
    **openapi.operation(
        "reset_password",
        "Set a new password with the token from a mail",
        "The token works once, and no longer than the account's password and address stay what they were when it was "
        "made. Ends all sessions of the account.",
        204,
        None,
        *(400, 403, 413, 415, 422, 503),
        body={JSON: PasswordReset},
    ),
)
async def reset_password(request: Request, services: ServicesOf) -> Response:
    content = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)
    body = parse_body(_password_reset(services.settings), content)
    # Before the hash, which is costly, so that nobody keeps the pool busy with invented tokens.
    reclaim = await services.password_resets.find(body.token)
    refuse_common(body.new_password, "body", "new_password", username=reclaim.username, email=reclaim.email)
    newer = await services.passwords.hash(body.new_password)
    # Before, so that nothing is changed if it fails; and after, for those that the old password started meanwhile.
    await services.sessions.end_all(reclaim.user_id)
    if not await services.accounts.change_password(reclaim.user_id, reclaim.password_hash, newer):
        raise ResetRefused
    services.note(AuditEvent.PASSWORD_RESET, reclaim.user_id)
    await services.sessions.end_all(reclaim.user_id)
    await services.password_resets.forget(body.token)
    return Response(status_code=204, headers=NO_STORE)
