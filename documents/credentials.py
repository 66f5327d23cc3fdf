"""What callers prove who they are with, a session or an API key, and whom it speaks for at the moment."""

from __future__ import annotations

import datetime as dt
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bson import ObjectId

from documents.access import Principal
from documents.accounts import SESSIONS, USERS, is_alive, parse_user_id, principal_from
from documents.database import Database, driver_errors
from documents.resources import Registry

API_KEYS = "api_keys"


@dataclass(frozen=True, slots=True)
class Credential:
    """A session or an API key, by the ids under which the feed tells of its changes. Nobody can sign in with this.

    `secret_hash` is the SHA-256 of the key that was presented; None for a session, whose tokens are signed.
    """

    collection: str
    id: ObjectId
    user_id: ObjectId
    secret_hash: str | None = None

    @classmethod
    def of_session(cls, user_id: str, session_id: str) -> Credential | None:
        """The session that a token names; None where these are no ids."""
        user, session = parse_user_id(user_id), parse_user_id(session_id)
        return None if user is None or session is None else cls(SESSIONS, session, user)

    @property
    def is_key(self) -> bool:
        """Whether it is an API key."""
        return self.collection == API_KEYS


@dataclass(frozen=True, slots=True)
class Terms:
    """What a credential's own document says: its scopes, and when it ends by itself.

    `ends_at` is None for a key without an end, and for sessions, which end with their tokens.
    """

    scopes: frozenset[str] | None = None
    ends_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Whom a credential speaks for now, within its scopes, and until when (None: see `Terms`)."""

    principal: Principal
    ends_at: dt.datetime | None = None

    def holds_at(self, now: dt.datetime) -> bool:
        """Whether it has not ended by itself."""
        return self.ends_at is None or now < self.ends_at


class Credentials:
    """The credentials of one database."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._scopes = registry.scopes

    async def standing(self, credential: Credential) -> Standing | None:
        """From the database: None when the user or the credential is gone or has ended. Raises DatabaseAway."""
        with driver_errors():
            stored = await self._database.latest(credential.collection).find_one(
                {"_id": credential.id, "user_id": credential.user_id}
            )
            terms = self.terms(credential.collection, stored)
            if stored is None or terms is None or not _is_right(credential, stored):
                return None
            principal = principal_from(await self._database.latest(USERS).find_one({"_id": credential.user_id}))
        if principal is None:
            return None
        key_id = credential.id if credential.is_key else None
        return Standing(principal.within(terms.scopes, key_id), terms.ends_at)

    def terms(self, collection: str, stored: Mapping[str, Any] | None) -> Terms | None:
        """What a stored session or key grants; None for one that is gone or has been ended.

        One that was edited into something else grants nothing.
        """
        if stored is None:
            return None
        if collection == SESSIONS:
            return Terms() if is_alive(stored) else None
        scopes, ends_at = stored.get("scopes"), stored.get("expires_at")
        if ends_at is not None and not isinstance(ends_at, dt.datetime):
            return None
        known = self._scopes.intersection(s for s in scopes if isinstance(s, str)) if isinstance(scopes, list) else ()
        return Terms(frozenset(known), ends_at)


def _is_right(credential: Credential, stored: Mapping[str, Any]) -> bool:
    if not credential.is_key:
        return True
    presented, kept = credential.secret_hash, stored.get("key_hash")
    return presented is not None and isinstance(kept, str) and hmac.compare_digest(presented.encode(), kept.encode())
