"""Registering, and one's own account."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, EmailStr, Field

from api import openapi
from api.bodies import JSON, Body, parse_body, read_json
from api.callers import SignedInCaller
from api.passwords import refuse_common
from api.problems import Problem
from api.services import ServicesOf
from api.session_routes import NO_STORE
from api.settings import MAX_PASSWORD, MIN_PASSWORD
from documents import encode_json, public_user

router = APIRouter()

Username = Annotated[str, Field(min_length=2, max_length=40, pattern=r"^[\w.\-]+$")]
Email = Annotated[EmailStr, Field(max_length=254)]
NewPassword = Annotated[str, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]


class Registration(Body):
    """A new account."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"username": "mara", "email": "mara@example.org", "password": "river-stone-42"}]
        }
    )

    username: Username
    email: Email
    password: NewPassword


class AccountPublic(BaseModel):
    """An account as its own user sees it."""

    id: str
    username: str
    email: str
    roles: list[str]
    is_active: bool
    created_at: Annotated[dt.datetime, Field(examples=["2026-01-31T12:00:00.000Z"])]


MODELS: list[type[BaseModel]] = [Registration, AccountPublic]


@router.post(
    "/auth/register",
    **openapi.operation(
        "register",
        "Register",
        "Creates an account. Usernames and email addresses are unique without regard to case.",
        201,
        AccountPublic,
        *(400, 403, 409, 413, 415, 422, 503),
        body={JSON: Registration},
    ),
)
async def register(request: Request, services: ServicesOf) -> Response:
    content = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)
    body = parse_body(Registration, content)
    if services.settings.registration == "closed":
        raise Problem(403, "Registration is closed on this server.")
    refuse_common(body.password, "body", "password")
    user = await services.accounts.register(body.username, body.email, await services.passwords.hash(body.password))
    return Response(encode_json(public_user(user)), status_code=201, media_type=JSON, headers=NO_STORE)


@router.head("/users/me", include_in_schema=False)
@router.get(
    "/users/me",
    **openapi.operation("get_own_account", "Your own account", "", 200, AccountPublic, 401, 503),
)
async def own_account(caller: SignedInCaller, services: ServicesOf) -> Response:
    account = await services.accounts.user(caller.principal)
    if account is None:
        raise Problem(401, "The account does not exist any more.")
    return Response(encode_json(public_user(account)), media_type=JSON, headers=NO_STORE)
