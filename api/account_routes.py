"""Registering, signing in, and one's own account."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, EmailStr, Field, ValidationError

from api import openapi
from api.bodies import JSON, read_json
from api.callers import SignedInCaller
from api.passwords import Busy
from api.problems import Problem
from api.services import Services, ServicesOf
from api.settings import MAX_PASSWORD, MIN_PASSWORD
from documents import DocumentRefused, Fault, encode_json, public_user

router = APIRouter()

#: The commonest passwords that are long enough (NIST SP 800-63B, 5.1.1.2, asks to refuse such).
_COMMON_PASSWORDS = frozenset(
    """
    password password1 password123 passw0rd 12345678 123456789 1234567890 qwertyuiop qwerty123 11111111 00000000
    iloveyou sunshine princess football baseball superman trustno1 letmein1 abc12345 abcd1234 1q2w3e4r 1qaz2wsx
    asdfghjkl zxcvbnm1 welcome1 administrator changeme
    """.split()  # noqa: SIM905 - a list of forty strings reads worse
)
_NO_STORE = {"Cache-Control": "no-store"}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


_B = TypeVar("_B", bound=_Body)


class Registration(_Body):
    """A new account."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"username": "mara", "email": "mara@example.org", "password": "river-stone-42"}]
        }
    )

    username: Annotated[str, Field(min_length=2, max_length=40, pattern=r"^[\w.\-]+$")]
    email: Annotated[EmailStr, Field(max_length=254)]
    password: Annotated[str, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]


class Login(_Body):
    """Who signs in: the username or the email address."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"username": "mara", "password": "river-stone-42"}]})

    username: Annotated[str, Field(min_length=1, max_length=254)]
    password: Annotated[str, Field(min_length=1, max_length=1_024)]


class AccountPublic(BaseModel):
    """An account as its own user sees it."""

    id: str
    username: str
    email: str
    roles: list[str]
    is_active: bool
    created_at: Annotated[dt.datetime, Field(examples=["2026-01-31T12:00:00.000Z"])]


class TokenAnswer(BaseModel):
    """An access token."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: Annotated[int, Field(description="Seconds until it ends.")]


MODELS: list[type[BaseModel]] = [Registration, Login, AccountPublic, TokenAnswer]


def _documented(
    summary: str,
    description: str,
    status: int,
    answer: type[BaseModel],
    body: type[BaseModel] | None,
    *errors: int,
) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        extra["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    content = {JSON: {"schema": {"$ref": f"#/components/schemas/{answer.__name__}"}}}
    return {
        "summary": summary,
        "description": description,
        "status_code": status,
        "responses": {status: {"description": summary, "content": content}, **openapi.error_answers(*errors)},
        "openapi_extra": extra or None,
        "response_model": None,
    }


@router.post(
    "/auth/register",
    operation_id="register",
    tags=["Accounts"],
    **_documented(
        "Register",
        "Creates an account. Usernames and email addresses are unique without regard to case.",
        201,
        AccountPublic,
        Registration,
        400,
        403,
        409,
        413,
        415,
        422,
        503,
    ),
)
async def register(request: Request, services: ServicesOf) -> Response:
    body = await _parse(request, services, Registration)
    if services.settings.registration == "closed":
        raise Problem(403, "Registration is closed on this server.")
    if body.password.casefold() in _COMMON_PASSWORDS:
        fault = Fault(("body", "password"), "this is one of the commonest passwords", "common_password")
        raise DocumentRefused([fault])
    user = await services.accounts.register(body.username, body.email, await _hash(services, body.password))
    return Response(encode_json(public_user(user)), status_code=201, media_type=JSON, headers=_NO_STORE)


@router.post(
    "/auth/login",
    operation_id="login",
    tags=["Accounts"],
    **_documented(
        "Sign in",
        "Answers with an access token. `username` may be the email address.",
        200,
        TokenAnswer,
        Login,
        400,
        401,
        413,
        415,
        422,
        503,
    ),
)
async def login(request: Request, services: ServicesOf) -> Response:
    body = await _parse(request, services, Login)
    account = await services.accounts.find(body.username)
    try:
        # An unknown user takes as long as a wrong password.
        right = await services.passwords.verify(account.password_hash if account else None, body.password)
    except Busy:
        raise _busy() from None
    if account is None or not right or not account.is_active or account.principal.user_id is None:
        raise Problem(401, "The username or the password is wrong.", headers={"WWW-Authenticate": "Bearer"})
    user_id = account.principal.user_id
    if services.passwords.outdated(account.password_hash):
        await services.accounts.set_password_hash(user_id, account.password_hash, await _hash(services, body.password))
    session_id = await services.accounts.start_session(user_id, dt.datetime.now(dt.UTC) + services.tokens.lifetime)
    answer = {
        "access_token": services.tokens.issue(str(user_id), str(session_id)),
        "token_type": "bearer",
        "expires_in": int(services.tokens.lifetime.total_seconds()),
    }
    return Response(encode_json(answer), media_type=JSON, headers=_NO_STORE)


@router.head("/users/me", include_in_schema=False)
@router.get(
    "/users/me",
    operation_id="get_own_account",
    tags=["Accounts"],
    **_documented("Your own account", "", 200, AccountPublic, None, 401, 503),
)
async def own_account(caller: SignedInCaller, services: ServicesOf) -> Response:
    account = await services.accounts.user(caller.principal)
    if account is None:
        raise Problem(401, "The account does not exist any more.")
    return Response(encode_json(public_user(account)), media_type=JSON, headers=_NO_STORE)


async def _hash(services: Services, password: str) -> str:
    try:
        return await services.passwords.hash(password)
    except Busy:
        raise _busy() from None


def _busy() -> Problem:
    return Problem(503, "Too many people are signing in at once; try again.", headers={"Retry-After": "1"})


async def _parse(request: Request, services: Services, model: type[_B]) -> _B:
    content = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        # The input is left out: it may be a password.
        faults = [Fault(("body", *entry["loc"]), entry["msg"], entry["type"]) for entry in error.errors()]
        raise DocumentRefused(faults) from None
