"""Who is calling: access tokens (RFC 6750) and API keys to principals.

Credentials stand in headers. What stands in a query string ends up in logs and histories, so there it is refused, but
for tickets, which are worth nothing once they were used.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.requests import HTTPConnection

from api.problems import Problem
from api.services import Caller, Services, services_of
from api.tokens import TokenRefused
from documents import ANONYMOUS, Credential, DocumentsError, utc_now

API_KEY_HEADER = "X-API-Key"
#: Query parameters in which clients put credentials.
_IN_THE_QUERY = frozenset({"token", "access_token", "api_key", "ticket"})

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="headwater"'}
_INVALID = {"WWW-Authenticate": 'Bearer realm="headwater", error="invalid_token"'}


async def caller_of_token(services: Services, token: str) -> Caller:
    """The caller that an access token speaks for. Raises a 401 Problem for one that does not, or no longer."""
    try:
        access = services.tokens.read(token)
    except TokenRefused:
        raise Problem(401, "The access token is not valid, or it has expired.", headers=_INVALID) from None
    credential = Credential.of_session(access.user_id, access.session_id)
    standing = None if credential is None else await services.principals.resolve(credential)
    if standing is None:
        raise credential_ended()
    return Caller(standing.principal, credential, access.expires_at)


async def caller_of_key(services: Services, key: str) -> Caller:
    """The caller that an API key speaks for. Raises a 401 Problem for one that does not, or no longer."""
    credential = services.api_keys.credential_of(key)
    if credential is None:
        raise Problem(401, "The API key is not valid.", headers=_CHALLENGE)
    standing = await services.principals.resolve(credential)
    if standing is None:
        detail = "The API key has expired or was deleted, or its owner may no longer sign in."
        raise Problem(401, detail, headers=_CHALLENGE)
    return Caller(standing.principal, credential, standing.ends_at)


def credential_ended() -> Problem:
    """The answer to a credential that is right, but whose session, key or user is gone."""
    return Problem(401, "The session has ended, or the account may no longer sign in.", headers=_INVALID)


def _credentials_in_query(connection: HTTPConnection) -> frozenset[str]:
    """The query parameters in which a client has put a credential, whatever it made of them (`ticket[$ne]`)."""
    return _IN_THE_QUERY.intersection(map(_base, connection.query_params))


def refuse_credentials_in_query(connection: HTTPConnection) -> None:
    """Raise a 401 Problem where a credential stands in the query string."""
    if misplaced := _credentials_in_query(connection):
        detail = f"Credentials are not accepted in the query string (`{min(misplaced)}`); send a header."
        raise Problem(401, detail, headers=_CHALLENGE)


def _base(name: str) -> str:
    return name.partition("[")[0]


async def caller_of(connection: HTTPConnection) -> Caller:
    """The caller of an HTTP request; anonymous without credentials. Raises a 401 Problem."""
    refuse_credentials_in_query(connection)
    return await _caller_of_headers(connection)


async def caller_of_live(connection: HTTPConnection) -> Caller:
    """The caller of what opens a live connection: the one place where a ticket may stand in the query string.

    Spends the ticket, whatever comes of the connection. Raises a 401 Problem.
    """
    if _credentials_in_query(connection) != {"ticket"}:
        return await caller_of(connection)
    given = [(name, value) for name, value in connection.query_params.multi_items() if _base(name) == "ticket"]
    if [name for name, _ in given] != ["ticket"] or _has_credentials(connection):
        raise Problem(401, "Send one ticket, and no other credentials.", headers=_CHALLENGE)
    services = services_of(connection)
    admission = await services.tickets.redeem(given[0][1])
    if admission is None:
        raise Problem(401, "The ticket is not valid: it has expired or was used before.", headers=_CHALLENGE)
    credential = admission.credential
    standing = await services.principals.resolve(credential)
    if standing is None:
        raise credential_ended()
    ends_at = standing.ends_at if credential.is_key else admission.ends_at
    if ends_at is not None and ends_at <= utc_now():
        raise credential_ended()
    return Caller(standing.principal, credential, ends_at)


def _has_credentials(connection: HTTPConnection) -> bool:
    return "authorization" in connection.headers or API_KEY_HEADER in connection.headers


async def identify(connection: HTTPConnection) -> Caller | None:
    """Find out who is calling, once, before anything else is done; what follows asks `caller_of`.

    None when credentials are not accepted, or cannot be checked now. Raises nothing for it: not every operation asks
    who is calling.
    """
    found: Caller | Exception
    try:
        found = await _read_headers(connection)
    except (Problem, DocumentsError) as error:
        found = error
    connection.scope.setdefault("state", {})["caller"] = found
    return found if isinstance(found, Caller) else None


async def _caller_of_headers(connection: HTTPConnection) -> Caller:
    """The caller that a request or a WebSocket handshake names in its headers. Raises a 401 Problem, DatabaseAway."""
    found = connection.scope.get("state", {}).get("caller")
    if isinstance(found, Exception):
        raise found
    return found if isinstance(found, Caller) else await _read_headers(connection)


async def caller_by_now(connection: HTTPConnection) -> Caller:
    """The caller of a request that takes long, asked anew. Raises a 401 Problem, DatabaseAway."""
    return await _read_headers(connection)


async def _read_headers(connection: HTTPConnection) -> Caller:
    tokens, keys = connection.headers.getlist("authorization"), connection.headers.getlist(API_KEY_HEADER)
    if not tokens and not keys:
        return Caller(ANONYMOUS)
    if len(tokens) + len(keys) > 1:
        raise Problem(401, f"Send one Authorization or one {API_KEY_HEADER} header, not several.", headers=_INVALID)
    services = services_of(connection)
    if keys:
        return await caller_of_key(services, keys[0])
    scheme, _, token = tokens[0].partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem(401, "The Authorization header must be `Bearer` and an access token.", headers=_INVALID)
    return await caller_of_token(services, token.strip())


async def signed_in(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
    """The caller; 401 for an anonymous one."""
    challenge_unless_signed_in(caller)
    return caller


CallerOf = Annotated[Caller, Depends(caller_of)]
SignedInCaller = Annotated[Caller, Depends(signed_in)]


async def by_session(caller: SignedInCaller) -> Caller:
    """The caller; 403 for one with an API key, which is not good for accounts, keys and passwords."""
    if caller.credential is not None and caller.credential.is_key:
        raise key_refused()
    return caller


async def without_key(connection: HTTPConnection) -> None:
    """403 for a request with an API key where nobody needs to be signed in: it may not be meant to have an effect."""
    if API_KEY_HEADER in connection.headers:
        raise key_refused()


def key_refused() -> Problem:
    """The answer to an API key where only a person may act."""
    detail = "An API key is not good for accounts, keys and passwords. Sign in, and send the access token."
    return Problem(403, detail)


SessionCaller = Annotated[Caller, Depends(by_session)]


async def _admin(caller: SessionCaller) -> Caller:
    if "admin" not in caller.principal.roles:
        raise Problem(403, "Only an admin may do this.")
    return caller


AdminCaller = Annotated[Caller, Depends(_admin)]


def challenge_unless_signed_in(caller: Caller) -> None:
    """Raise 401 for an anonymous caller: what is forbidden now may be allowed after signing in."""
    if not caller.principal.signed_in:
        raise Problem(401, "Sign in first.", headers=_CHALLENGE)
