"""Who is calling: bearer tokens (RFC 6750) to principals."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.requests import HTTPConnection

from api.problems import Problem
from api.services import Caller, Services, services_of
from api.tokens import TokenRefused
from documents import ANONYMOUS

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="headwater"'}
_INVALID = {"WWW-Authenticate": 'Bearer realm="headwater", error="invalid_token"'}


async def caller_of_token(services: Services, token: str) -> Caller:
    """The caller that a token speaks for. Raises a 401 Problem for one that does not, or no longer."""
    try:
        access = services.tokens.read(token)
    except TokenRefused:
        raise Problem(401, "The access token is not valid, or it has expired.", headers=_INVALID) from None
    principal = await services.principals.resolve(access.user_id, access.session_id)
    if principal is None:
        raise session_ended()
    return Caller(principal, access)


def session_ended() -> Problem:
    """The answer to a token that is right, but whose session or user is gone."""
    return Problem(401, "The session has ended, or the account may no longer sign in.", headers=_INVALID)


async def caller_of(connection: HTTPConnection) -> Caller:
    """The caller of an HTTP request or WebSocket handshake; anonymous without an `Authorization` header."""
    header = connection.headers.get("authorization")
    if header is None:
        return Caller(ANONYMOUS, None)
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem(401, "The Authorization header must be `Bearer` and an access token.", headers=_INVALID)
    return await caller_of_token(services_of(connection), token.strip())


async def signed_in(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
    """The caller; 401 for an anonymous one."""
    if not caller.principal.signed_in:
        raise Problem(401, "Sign in first.", headers=_CHALLENGE)
    return caller


CallerOf = Annotated[Caller, Depends(caller_of)]
SignedInCaller = Annotated[Caller, Depends(signed_in)]


async def _admin(caller: SignedInCaller) -> Caller:
    if "admin" not in caller.principal.roles:
        raise Problem(403, "Only an admin may do this.")
    return caller


AdminCaller = Annotated[Caller, Depends(_admin)]


def challenge_unless_signed_in(caller: Caller) -> None:
    """Raise 401 for an anonymous caller: what is forbidden now may be allowed after signing in."""
    if not caller.principal.signed_in:
        raise Problem(401, "Sign in first.", headers=_CHALLENGE)
