"""Registering, and one's own account."""

from __future__ import annotations

import datetime as dt
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import letters, openapi
from api.addresses import address_of
from api.bodies import JSON, MERGE_PATCH, Body, parse_body, read_json
from api.callers import SessionCaller, without_key
from api.mail import Letter
from api.mailboxes import Email, same_mailbox
from api.passwords import refuse_common, with_password_limits
from api.problems import Problem
from api.services import Caller, Services, ServicesOf
from api.session_routes import NO_STORE
from api.settings import Settings
from documents import AuditEvent, InvalidInput, encode_json, public_user

router = APIRouter()

Username = Annotated[str, Field(min_length=2, max_length=40, pattern=r"^[\w.\-]+$")]


class Registration(Body):
    """A new account."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"username": "mara", "email": "mara@example.org", "password": "river-stone-42"}]
        }
    )

    username: Username
    email: Email
    password: Annotated[str, Field(description="Its length is a setting of the server.")]


class AccountChange(Body):
    """What users change of their own account; what is left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"email": "mara@example.org", "current_password": "river-stone-42"}]}
    )

    # The defaults are never used: None would be in the schema, and null would be accepted.
    username: Annotated[Username, Field(default_factory=str)]
    email: Annotated[Email, Field(default_factory=str)]
    current_password: Annotated[
        str, Field(default_factory=str, min_length=1, max_length=1_024, description="Needed with another `email`.")
    ]


class PasswordChange(Body):
    """A new password, and the one that it replaces."""

    current_password: Annotated[str, Field(min_length=1, max_length=1_024)]
    new_password: Annotated[str, Field(description="Its length is a setting of the server.")]


class AccountPublic(BaseModel):
    """An account as its own user sees it."""

    id: str
    username: str
    email: str
    roles: list[str]
    is_active: bool
    created_at: Annotated[dt.datetime, Field(examples=["2026-01-31T12:00:00.000Z"])]


def models(settings: Settings) -> list[type[BaseModel]]:
    """The bodies and answers of these routes, as the settings make them."""
    return [registration_form(settings), AccountChange, _password_change(settings), AccountPublic]


def registration_form(settings: Settings) -> type[Registration]:
    """The form of a registration, with the lengths of passwords that are set."""
    return with_password_limits(Registration, settings.password_min_length, settings.password_max_length)


def _password_change(settings: Settings) -> type[PasswordChange]:
    return with_password_limits(PasswordChange, settings.password_min_length, settings.password_max_length)


@router.post(
    "/auth/register",
    dependencies=[Depends(without_key)],
    **openapi.operation(
        "register",
        "Register",
        "Creates an account. Usernames and email addresses are unique without regard to case.",
        201,
        AccountPublic,
        *(400, 403, 409, 413, 415, 422, 429, 503),
        body={JSON: Registration},
    ),
)
async def register(request: Request, services: ServicesOf) -> Response:
    content = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)
    body = parse_body(registration_form(services.settings), content)
    if services.settings.registration == "closed":
        raise Problem(403, "Registration is closed on this server.")
    refuse_common(body.password, "body", "password", username=body.username, email=body.email)
    await services.throttle.spend("registration", address_of(request))
    user = await services.accounts.register(body.username, body.email, await services.passwords.hash(body.password))
    services.note(AuditEvent.REGISTERED, user["_id"], username=user["username"])
    services.mail.send("welcome", partial(_welcome, user["email"], services.settings.address))
    return Response(encode_json(public_user(user)), status_code=201, media_type=JSON, headers=NO_STORE)


@router.head("/users/me", include_in_schema=False)
@router.get(
    "/users/me",
    **openapi.by_session(
        openapi.operation(
            "get_own_account", "Your own account", "With what others do not see of it.", 200, AccountPublic, 401, 503
        )
    ),
)
async def own_account(caller: SessionCaller, services: ServicesOf) -> Response:
    account = await services.accounts.user(caller.principal)
    if account is None:
        raise _gone()
    return Response(encode_json(public_user(account)), media_type=JSON, headers=NO_STORE)


@router.patch(
    "/users/me",
    **openapi.by_session(
        openapi.operation(
            "change_own_account",
            "Change your own account",
            "The username and the email address, each unique without regard to case. Another address needs the current "
            "password, because who reads its mail can reset the password; the former address is told by mail.",
            200,
            AccountPublic,
            *(400, 401, 403, 409, 413, 415, 422, 429, 503),
            body={MERGE_PATCH: AccountChange, JSON: AccountChange},
        )
    ),
)
async def change_own_account(request: Request, caller: SessionCaller, services: ServicesOf) -> Response:
    content = await read_json(request, (MERGE_PATCH, JSON), max_bytes=services.settings.max_body_bytes)
    given = parse_body(AccountChange, content).model_dump(exclude_unset=True)
    password = given.pop("current_password", None)
    account = await services.accounts.user(caller.principal)
    if account is None:
        raise _gone()
    changes = {name: value for name, value in given.items() if value != account.get(name)}
    moved = "email" in changes and not same_mailbox(changes["email"], former := str(account.get("email", "")))
    if moved:
        # Whoever reads the account's mail can reset its password, so a token alone must not say where it goes.
        if password is None:
            msg = "another email address needs the current password"
            raise InvalidInput.at("body", "current_password", msg=msg, type="missing")
        await _confirm(services, caller, password)
    if changes:
        before = {name: account.get(name) for name in changes}
        account = await services.accounts.rename(account, **changes)
        if account is None:
            raise _gone()
        user_id = account["_id"]
        services.note(AuditEvent.ACCOUNT_CHANGED, user_id, by=user_id, changed=[*changes], before=before, after=changes)
    if moved:
        services.mail.send("address_changed", partial(_address_changed, former, services.settings.address))
    return Response(encode_json(public_user(account)), media_type=JSON, headers=NO_STORE)


@router.post(
    "/users/me/password",
    **openapi.by_session(
        openapi.operation(
            "change_own_password",
            "Set a new password",
            "Needs the current one, and ends all other sessions of the account.",
            204,
            None,
            *(400, 401, 403, 413, 415, 422, 429, 503),
            body={JSON: PasswordChange},
        )
    ),
)
async def change_own_password(request: Request, caller: SessionCaller, services: ServicesOf) -> Response:
    content = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)
    body = parse_body(_password_change(services.settings), content)
    account = await services.accounts.user(caller.principal)
    if account is None:
        raise _gone()
    user_id, username, email = account["_id"], str(account.get("username")), str(account.get("email"))
    refuse_common(body.new_password, "body", "new_password", username=username, email=email)
    kept = None if caller.credential is None else caller.credential.id
    stored = await _confirm(services, caller, body.current_password)
    newer = await services.passwords.hash(body.new_password)
    # Before, so that nothing is changed if it fails; and after, for those that the old password started meanwhile.
    await services.sessions.end_all(user_id, but=kept)
    if not await services.accounts.change_password(user_id, stored, newer):
        raise _wrong()
    services.note(AuditEvent.PASSWORD_CHANGED, user_id, by=user_id)
    await services.sessions.end_all(user_id, but=kept)
    return Response(status_code=204, headers=NO_STORE)


async def _confirm(services: Services, caller: Caller, password: str) -> str:
    """The stored hash of the account's password, which `password` is. Raises a 403 Problem, 429 for a guesser."""
    user_id = caller.principal.user_id
    if user_id is None:
        raise _gone()
    session_id = None if caller.credential is None else caller.credential.id
    async with services.throttle.confirmation(str(session_id or user_id)) as attempt:
        stored = await services.accounts.password_hash(user_id)
        if not await services.passwords.verify(stored, password) or stored is None:
            await attempt.failed()
            raise _wrong()
    return stored


async def _address_changed(to: str, address: str) -> Letter:
    return letters.address_changed(to, address)


async def _welcome(to: str, address: str) -> Letter:
    return letters.welcome(to, address)


def _gone() -> Problem:
    return Problem(401, "The account does not exist any more.")


def _wrong() -> Problem:
    # Not 401: the token is right, and a client would go and refresh it.
    return Problem(403, "The current password is wrong.")
