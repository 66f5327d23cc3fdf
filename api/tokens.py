"""Access tokens: signed JSON Web Tokens (RFC 7519) with the algorithm pinned."""

from __future__ import annotations

import datetime as dt
import secrets
from dataclasses import dataclass

import jwt

ISSUER = "headwater"
AUDIENCE = "headwater-api"
ALGORITHM = "HS256"
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
    """Signs and reads access tokens."""

    def __init__(self, secret: bytes, lifetime: dt.timedelta) -> None:
        self.lifetime = lifetime
        self._secret = secret

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
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM), lifetime

    def read(self, token: str) -> AccessToken:
        """The token's content. Raises TokenRefused."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
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
