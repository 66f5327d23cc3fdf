"""Tokens that reset a forgotten password: single-use, short-lived, and worth nothing to who reads the database.

One document per account in `headwater_password_resets`, an internal collection. It holds the token's SHA-256 and what
the account was when the token was made: a token is void as soon as the password, the address or the token itself is
another one.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bson import ObjectId
from pymongo import IndexModel

from documents.accounts import USERS, fold, principal_from
from documents.database import Database, driver_errors
from documents.errors import Duplicate, ResetRefused
from documents.resources import utc_now

RESETS = "headwater_password_resets"
LIFETIME = dt.timedelta(minutes=30)
#: Mails per account within LIFETIME. Each makes the token before it void, so the newest mail is always good: who asks
#: in somebody else's name fills no mailbox, and keeps nobody from a reset.
MAX_REQUESTS = 3

_INDEXES = [
    IndexModel([("token_hash", 1)], name="token"),
    IndexModel([("expires_at", 1)], name="expire_after_end", expireAfterSeconds=0),
]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A new token, in clear here and nowhere else, and the address that it may be sent to."""

    email: str
    token: str


@dataclass(frozen=True, slots=True)
class Reclaim:
    """The account that a token resets, its names, and the hash that the new password's replaces (see `spend`)."""

    user_id: ObjectId
    username: str
    email: str
    password_hash: str


class PasswordResets:
    """The reset tokens of one database. `clock` gives the present in UTC."""

    def __init__(self, database: Database, clock: Callable[[], dt.datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def install(self) -> None:
        """Create the named indexes. Safe to repeat, and while several processes start."""
        with driver_errors():
            await self._database.raw[RESETS].create_indexes(_INDEXES)

    async def request(self, email: str) -> Ticket | None:
        """A token for the account with this address; None when there is none that may sign in, or too many were made.

        Takes longer for an account that exists: do not let an answer wait for it.
        """
        try:
            fold(email).encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            return None
        with driver_errors():
            user = await self._database.latest(USERS).find_one({"email_key": fold(email)})
        if user is None or principal_from(user) is None:
            return None
        token = secrets.token_urlsafe(32)
        now = self._clock()
        few = [{f"requested.{MAX_REQUESTS - 1}": {"$exists": False}}, {"requested.0": {"$lte": now - LIFETIME}}]
        changes = {
            "$set": {"token_hash": _hash(token), "account": _account(user), "expires_at": now + LIFETIME},
            # The oldest of the last few is what the limit looks at.
            "$push": {"requested": {"$each": [now], "$slice": -MAX_REQUESTS}},
        }
        try:
            with driver_errors():
                await self._database.latest(RESETS).update_one({"_id": user["_id"], "$or": few}, changes, upsert=True)
        except Duplicate:
            # The document is there, and does not match: too many. (Or another request was faster, which has sent one.)
            return None
        return Ticket(str(user["email"]), token)

    async def find(self, token: str) -> Reclaim:
        """The account that `token` resets now. Raises ResetRefused.

        The caller stores a new password on the condition that the hash is still the one given here
        (`Accounts.change_password`). That is what makes a token single-use: of two that spend it at the same moment
        one changes the hash, and with it what the token is bound to.
        """
        with driver_errors():
            reset = await self._database.latest(RESETS).find_one({"token_hash": _hash(token)})
            if reset is None or not _is_before(self._clock(), reset.get("expires_at")):
                raise ResetRefused
            user = await self._database.latest(USERS).find_one({"_id": reset["_id"]})
        if user is None or principal_from(user) is None or _account(user) != reset.get("account"):
            raise ResetRefused
        return Reclaim(reset["_id"], str(user.get("username")), str(user.get("email")), str(user["password_hash"]))

    async def forget(self, token: str) -> None:
        """Remove a token that was spent. It is void already; how many were asked for stays known."""
        with driver_errors():
            await self._database.latest(RESETS).update_one({"token_hash": _hash(token)}, {"$unset": {"token_hash": ""}})


def _hash(text: str) -> str:
    # A fast hash will do: nobody guesses 256 random bits.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _account(user: Mapping[str, Any]) -> str:
    """What a token is bound to: the password and the address at the time."""
    return _hash(f"{user.get('password_hash')}\0{user.get('email_key')}")


def _is_before(now: dt.datetime, end: object) -> bool:
    return isinstance(end, dt.datetime) and now < end
