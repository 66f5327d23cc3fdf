"""Signing in, staying signed in, and signing out."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import openapi
from api.addresses import address_of
from api.bodies import FORM, JSON, Body, media_type, parse_body, read_form, read_json
from api.callers import without_key
from api.problems import Problem
from api.services import Services, ServicesOf
from documents import AuditEvent, RefreshReused, Renewal, encode_json, principal_from

router = APIRouter(dependencies=[Depends(without_key)])

#: RFC 6749, 5.1: answers that hold tokens are not stored by anybody on the way.
NO_STORE = {"Cache-Control": "no-store"}


class Login(Body):
    """Who signs in: the username or the email address."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"username": "mara", "password": "river-stone-42"}]})

    username: Annotated[str, Field(min_length=1, max_length=254)]
    password: Annotated[str, Field(min_length=1, max_length=1_024)]


class LoginForm(Login):
    """The same as OAuth2's password form (RFC 6749, 4.3.2); parameters that are not known here are ignored."""

    model_config = ConfigDict(extra="ignore", json_schema_extra=None)

    grant_type: Literal["password"]


class RefreshToken(Body):
    """A refresh token, as a sign-in or the last refresh gave it."""

    refresh_token: Annotated[str, Field(min_length=1, max_length=512)]


class TokenAnswer(BaseModel):
    """An access token, and what gets the next one."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: Annotated[int, Field(description="Seconds until the access token ends.")]
    refresh_token: Annotated[str, Field(description="Good for one refresh, which answers with the next one.")]


MODELS: list[type[BaseModel]] = [Login, LoginForm, RefreshToken, TokenAnswer]


@router.post(
    "/auth/login",
    **openapi.operation(
        "login",
        "Sign in",
        "Answers with an access token and a refresh token. `username` may be the email address. Also takes OAuth2's "
        "password form, so that *Authorize* in these pages works.",
        200,
        TokenAnswer,
        *(400, 401, 403, 413, 415, 422, 429, 503),
        body={JSON: Login, FORM: LoginForm},
    ),
)
async def login(request: Request, services: ServicesOf) -> Response:
    body: Login
    if media_type(request) == FORM:
        form = await read_form(request, (JSON, FORM), max_bytes=services.settings.max_body_bytes)
        body = parse_body(LoginForm, form)
    else:
        content = await read_json(request, (JSON, FORM), max_bytes=services.settings.max_body_bytes)
        body = parse_body(Login, content)
    async with services.throttle.sign_in(body.username, address_of(request)) as attempt:
        account = await services.accounts.find(body.username)
        # An unknown user takes as long as a wrong password.
        right = await services.passwords.verify(account.password_hash if account else None, body.password)
        if account is None or not right or not account.is_active or account.principal.user_id is None:
            await attempt.failed()
            raise _wrong()
        await attempt.succeeded()
    user_id, verified = account.principal.user_id, account.password_hash
    if services.passwords.outdated(verified):
        newer = await services.passwords.hash(body.password)
        await services.accounts.set_password_hash(user_id, verified, newer)
    renewal = await services.sessions.start(user_id)
    # A new password and a deactivation end the sessions that they find. So of a change at this moment one sees the
    # other.
    user = await services.accounts.user(account.principal)
    stored = None if user is None or principal_from(user) is None else str(user.get("password_hash", ""))
    if stored != verified and not await services.passwords.verify(stored, body.password):
        await services.sessions.end(renewal.session_id)
        raise _wrong()
    return _tokens(services, renewal)


@router.post(
    "/auth/refresh",
    **openapi.operation(
        "refresh",
        "Get the next access token",
        "Answers as a sign-in does, with the successor of the refresh token. Within 10 seconds the same token gets the "
        "same successor; one that comes back later ends the session with all its tokens.",
        200,
        TokenAnswer,
        *(400, 401, 403, 413, 415, 422, 503),
        body={JSON: RefreshToken},
    ),
)
async def refresh(request: Request, services: ServicesOf) -> Response:
    token = await _token_of(request, services)
    try:
        renewal = await services.sessions.refresh(token)
    except RefreshReused as error:
        services.note(AuditEvent.SESSION_REVOKED, error.user_id, reason="a spent refresh token came back")
        raise
    return _tokens(services, renewal)


@router.post(
    "/auth/logout",
    **openapi.operation(
        "logout",
        "Sign out",
        "Ends the session of the refresh token: its tokens are refused, its sockets close with 4503. The answer is the "
        "same for a token that is not known.",
        204,
        None,
        *(400, 403, 413, 415, 422, 503),
        body={JSON: RefreshToken},
    ),
)
async def logout(request: Request, services: ServicesOf) -> Response:
    await services.sessions.end_by_token(await _token_of(request, services))
    return Response(status_code=204, headers=NO_STORE)


def _wrong() -> Problem:
    return Problem(401, "The username or the password is wrong.", headers={"WWW-Authenticate": "Bearer"})


async def _token_of(request: Request, services: Services) -> str:
    content = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)
    return parse_body(RefreshToken, content).refresh_token


def _tokens(services: Services, renewal: Renewal) -> Response:
    access_token, lifetime = services.tokens.issue(str(renewal.user_id), str(renewal.session_id), renewal.ends_at)
    answer = {
        "access_token": access_token,
        "token_type": "bearer",
        "expires_in": int(lifetime.total_seconds()),
        "refresh_token": renewal.refresh_token,
    }
    return Response(encode_json(answer), media_type=JSON, headers=NO_STORE)
