"""Access tokens: signed JSON Web Tokens (RFC 7519), each key with its one algorithm (RFC 8725, 3.1)."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import jwt

from api.token_keys import TokenKey

ISSUER = "headwater"
AUDIENCE = "headwater-api"
_REQUIRED = ["iss", "aud", "exp", "iat", "nbf", "jti", "sub", "sid"]


class TokenRefused(Exception):
    """The token is not one that this server signed, or it has expired."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a valid token says: who, in which session, until when."""

    user_id: str
    session_id: str
    expires_at: dt.datetime


class Tokens:
    """Signs access tokens with the first of `keys`, and reads those that any of them has signed."""

    def __init__(self, keys: Sequence[TokenKey], lifetime: dt.timedelta) -> None:
        self.lifetime = lifetime
        self._signing = keys[0]
        self._keys = {key.kid: key for key in keys}

    def issue(self, user_id: str, session_id: str, session_ends_at: dt.datetime) -> tuple[str, dt.timedelta]:
        """A token for a user's session, and how long it is valid: not longer than the session.

        It names nobody's roles: those are read from the user.
        """
        now = dt.datetime.now(dt.UTC)
        lifetime = min(self.lifetime, session_ends_at - now)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "jti": secrets.token_urlsafe(12),
            "sub": user_id,
            "sid": session_id,
        }
        key = self._signing
        headers = None if key.kid is None else {"kid": key.kid}
        return jwt.encode(claims, key.signing, algorithm=key.algorithm, headers=headers), lifetime

    def read(self, token: str) -> AccessToken:
        """The token's content. Raises TokenRefused."""
        try:
            # The header says which key, never which algorithm.
            key = self._keys.get(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise TokenRefused("the token names no key of this server")
            claims = jwt.decode(
                token,
                key.verifying,
                algorithms=[key.algorithm],
                issuer=ISSUER,
                audience=AUDIENCE,
                options={"require": _REQUIRED},
            )
            user_id, session_id = claims["sub"], claims["sid"]
            if not isinstance(user_id, str) or not isinstance(session_id, str):
                raise TokenRefused("the token's claims are malformed")
            return AccessToken(user_id, session_id, dt.datetime.fromtimestamp(claims["exp"], dt.UTC))
        except (jwt.PyJWTError, ValueError, OverflowError, OSError, RecursionError) as error:
            # RecursionError: the header is read before the signature is, and may be any JSON.
            raise TokenRefused(type(error).__name__) from None
