"""Sessions and their refresh tokens: started at a sign-in, renewed by rotation, ended once and for all.

A session is a *family* of refresh tokens (RFC 9700, 4.14.2): each is good for one successor. Nothing that could be used
is stored: the document holds SHA-256 hashes, and a successor is derived from its predecessor with the server's secret.
So two tabs that refresh at the same moment, or a client whose answer was lost, get the same successor; and a token that
comes back later than that was stolen from somebody, and ends the session.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bson import ObjectId
from pymongo.errors import WriteError

from documents.access import SYSTEM_AUTHOR, author_of
from documents.accounts import SESSIONS, USERS, is_alive, principal_from
from documents.codec import Stored
from documents.database import Database, driver_errors
from documents.errors import Contended, RefreshRefused, RefreshReused
from documents.input import validate_whole
from documents.resources import Registry, utc_now

#: How long a spent token still gives its successor: two tabs at once, or an answer that was lost.
REUSE_WINDOW = dt.timedelta(seconds=10)
#: How many spent tokens are remembered for that; who refreshes more often within it does so on purpose.
MAX_SPENT = 16
_ID_BYTES, _RANDOM_BYTES, _SEAL_BYTES = 12, 32, 16
_TOKEN_BYTES = _ID_BYTES + _RANDOM_BYTES + _SEAL_BYTES
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Renewal:
    """A session as a sign-in or a refresh leaves it. `refresh_token` is in clear here and nowhere else."""

    user_id: ObjectId
    session_id: ObjectId
    ends_at: dt.datetime
    refresh_token: str


class Sessions:
    """The sessions of one database.

    `secret` is the server's; `lifetime` is how long a session lasts, however often it is refreshed; `clock` gives the
    present in UTC.
    """

    def __init__(
        self,
        database: Database,
        registry: Registry,
        secret: bytes,
        lifetime: dt.timedelta,
        clock: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._database = database
        self._sessions = registry[SESSIONS]
        self._key = hmac.digest(secret, b"headwater refresh tokens", "sha256")
        self._lifetime = lifetime
        self._clock = clock

    async def start(self, user_id: ObjectId) -> Renewal:
        """Record a sign-in."""
        session_id = ObjectId()
        token = self._token(session_id, secrets.token_bytes(_RANDOM_BYTES))
        ends_at = self._clock() + self._lifetime
        values = {"_id": session_id, "user_id": user_id, "ends_at": ends_at, "refresh_hash": _hash(token)}
        authorship = {"created_by": author_of(user_id), "updated_by": author_of(user_id)}
        document = validate_whole(self._sessions, values | authorship)
        async with self._database.session() as session:
            with driver_errors():
                await self._database.insert(SESSIONS, document, session)
        return Renewal(user_id, session_id, ends_at, token)

    async def refresh(self, token: str) -> Renewal:
        """Exchange a refresh token for its successor. Raises RefreshRefused, and Contended.

        Of several calls with one token within REUSE_WINDOW all get the same successor. A token that was spent before
        that ends its session.
        """
        session_id = self._session_of(token)
        if session_id is None:
            raise RefreshRefused("the refresh token is not valid, or its session has ended")
        presented = _hash(token)
        successor = self._token(session_id, hmac.digest(self._key, b"successor" + token.encode(), "sha256"))
        for _ in range(_ATTEMPTS):
            stored = await self._find(session_id)
            now = self._clock()
            if stored is None or not is_alive(stored) or not _is_before(now, stored.get("ends_at")):
                raise RefreshRefused("the refresh token is not valid, or its session has ended")
            with driver_errors():
                user = await self._database.latest(USERS).find_one({"_id": stored.get("user_id")})
            principal = principal_from(user)
            if principal is None or principal.user_id is None:
                raise RefreshRefused("the refresh token is not valid, or its session has ended")
            renewal = Renewal(principal.user_id, session_id, stored["ends_at"], successor)
            recent = _recently_spent(stored, now)
            if _same(presented, stored.get("refresh_hash")):
                spent = [*recent, {"hash": presented, "at": now}][-MAX_SPENT:]
                try:
                    changes = {"refresh_hash": _hash(successor), "spent_tokens": spent}
                    if await self._replace(stored, changes, principal.author):
                        return renewal
                except WriteError:  # as in `end`
                    raise RefreshRefused("the session's document breaks the rules of its class") from None
            elif True in [_same(presented, entry["hash"]) for entry in recent]:
                return renewal
            else:
                # It bears our seal, so it was good once.
                await self.end(session_id)
                raise RefreshReused(principal.user_id)
        raise Contended("the session kept changing; nothing was written")

    async def end_by_token(self, token: str) -> None:
        """End the session that a refresh token was made for, spent or not. Does nothing for unknown ones."""
        session_id = self._session_of(token)
        if session_id is not None:
            await self.end(session_id)

    async def end(self, session_id: ObjectId) -> None:
        """End a session now; one that has ended, or does not exist, stays as it is. Raises Contended."""
        for _ in range(_ATTEMPTS):
            stored = await self._find(session_id)
            if stored is None or not is_alive(stored):
                return
            try:
                # It may be its user who ends it, an admin, or a theft that was noticed.
                if await self._replace(stored, {"ended_at": self._clock()}, SYSTEM_AUTHOR):
                    return
            except WriteError:
                # Somebody made of it what the validator refuses to be written again. A session that is gone has ended.
                async with self._database.session() as session:
                    with driver_errors():
                        if await self._database.delete_if_unchanged(SESSIONS, stored, session):
                            return
        raise Contended("the session kept changing; it may not have ended")

    async def end_all(self, user_id: ObjectId, *, but: ObjectId | None = None) -> None:
        """End all sessions of a user, except `but`. One that is started meanwhile may be missed."""
        with driver_errors():
            found = self._database.latest(SESSIONS).find({"user_id": user_id, "ended_at": None}, {"_id": 1})
            ids = [session["_id"] async for session in found]
        for session_id in ids:
            if session_id != but:
                await self.end(session_id)

    async def _find(self, session_id: ObjectId) -> Stored | None:
        with driver_errors():
            return await self._database.latest(SESSIONS).find_one({"_id": session_id})

    async def _replace(self, read: Stored, changes: Mapping[str, Any], author: str) -> bool:
        """Write `changes` if the stored session still is `read`. Raises WriteError where the validator refuses."""
        revision = read.get("revision")
        counted = {"revision": revision + 1} if isinstance(revision, int) else {}
        new = read | dict(changes) | {"updated_at": self._clock(), "updated_by": author} | counted
        async with self._database.session() as session:
            with driver_errors():
                return await self._database.replace_if_unchanged(SESSIONS, read, new, session)

    def _token(self, session_id: ObjectId, random: bytes) -> str:
        content = session_id.binary + random
        return base64.urlsafe_b64encode(content + self._seal(content)).decode()

    def _seal(self, content: bytes) -> bytes:
        return hmac.digest(self._key, b"seal" + content, "sha256")[:_SEAL_BYTES]

    def _session_of(self, token: str) -> ObjectId | None:
        """The session that a token was made for; None for what this server did not make.

        Without the seal, anybody who has seen a session's id could end it with an invented token.
        """
        try:
            decoded = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        # A base64 text has several spellings; a token has one.
        if len(decoded) != _TOKEN_BYTES or base64.urlsafe_b64encode(decoded) != token.encode():
            return None
        content, seal = decoded[:-_SEAL_BYTES], decoded[-_SEAL_BYTES:]
        return ObjectId(content[:_ID_BYTES]) if hmac.compare_digest(seal, self._seal(content)) else None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _same(presented: str, stored: object) -> bool:
    return isinstance(stored, str) and hmac.compare_digest(presented.encode(), stored.encode())


def _is_before(now: dt.datetime, end: object) -> bool:
    return isinstance(end, dt.datetime) and now < end


def _recently_spent(session: Mapping[str, Any], now: dt.datetime) -> list[Stored]:
    """The tokens that were spent within REUSE_WINDOW, oldest first, whatever somebody made of the list."""
    stored = session.get("spent_tokens")
    return [
        entry
        for entry in (stored if isinstance(stored, list) else [])
        if isinstance(entry, dict)
        and isinstance(entry.get("hash"), str)
        and isinstance(entry.get("at"), dt.datetime)
        and now - entry["at"] < REUSE_WINDOW
    ]
