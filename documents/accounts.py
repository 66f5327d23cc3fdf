"""Users and their sessions in the database. Hashing passwords and signing tokens is done elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import unicodedata
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson import ObjectId
from pymongo.errors import WriteError

from documents.access import ROLES, Principal, author_of
from documents.codec import Stored
from documents.database import Database, driver_errors
from documents.errors import Contended, DocumentRefused, Duplicate, Fault, LastAdmin
from documents.input import validate_whole
from documents.public import public_value
from documents.resources import Registry, utc_now

USERS = "users"
SESSIONS = "sessions"
#: How often a write of an account that changes meanwhile is tried.
_ATTEMPTS = 20
#: Longer than a change of one document takes.
LEASE = dt.timedelta(seconds=20)

_PUBLIC_NAMES = {"username_key": "username", "email_key": "email"}


@dataclass(frozen=True, slots=True)
class Account:
    """What signing in needs to know of a user."""

    principal: Principal
    is_active: bool
    password_hash: str


def fold(name: str) -> str:
    """The form in which usernames and email addresses are compared: without regard to case, and to how Unicode
    spells the same letters (UTS 15, NFKC)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name.strip()).casefold())


def principal_from(user: Mapping[str, Any] | None) -> Principal | None:
    """The principal that a stored user is; None for one who does not exist or may not sign in.

    A user document that was edited into something else grants nothing.
    """
    if user is None or user.get("is_active", True) is not True or not isinstance(user.get("_id"), ObjectId):
        return None
    roles = user.get("roles")
    known = [role for role in roles if role in ROLES] if isinstance(roles, list) else []
    return Principal(user["_id"], str(user.get("username", "")), frozenset(known))


def parse_user_id(text: object) -> ObjectId | None:
    """A user or session id out of a token; None for anything else."""
    # ObjectId(None) is a new id, and of bytes it takes any twelve.
    return ObjectId(text) if isinstance(text, str) and ObjectId.is_valid(text) else None


class Accounts:
    """Users and sessions of one database."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._users = registry[USERS]
        self._removal = asyncio.Lock()

    async def register(
        self,
        username: str,
        email: str,
        password_hash: str,
        roles: Sequence[str] = ("user",),
        *,
        author: str | None = None,
    ) -> Stored:
        """Create a user, whose author is themselves or `author`. Raises Duplicate, naming `username` or `email`, and
        DocumentRefused.

        The unique indexes decide, so of two registrations at once exactly one succeeds.
        """
        user_id = ObjectId()
        values = {
            "_id": user_id,
            "username": username.strip(),
            "email": email.strip(),
            "roles": list(roles),
            "username_key": fold(username),
            "email_key": fold(email),
            "password_hash": password_hash,
            "created_by": author or author_of(user_id),
            "updated_by": author or author_of(user_id),
        }
        user = validate_whole(self._users, values)
        try:
            async with self._database.session() as session:
                with driver_errors():
                    await self._database.insert(USERS, user, session)
        except Duplicate as error:
            raise Duplicate([_PUBLIC_NAMES.get(name, name) for name in error.fields]) from None
        return user

    async def find(self, login: str) -> Account | None:
        """The user with this username or email address."""
        key = fold(login)
        try:
            key.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            return None
        with driver_errors():
            user = await self._database.latest(USERS).find_one({"$or": [{"username_key": key}, {"email_key": key}]})
        if user is None or not isinstance(user.get("_id"), ObjectId):
            return None
        active = user.get("is_active", True) is True
        principal = principal_from({**user, "is_active": True})
        if principal is None:
            return None
        return Account(principal, active, str(user.get("password_hash", "")))

    async def user(self, principal: Principal) -> Stored | None:
        """The stored user that a principal is."""
        with driver_errors():
            return await self._database.latest(USERS).find_one({"_id": principal.user_id})

    async def set_password_hash(self, user_id: ObjectId, old: str, new: str) -> None:
        """Store a hash with newer parameters, unless the password was changed meanwhile."""
        with driver_errors():
            await self._database.latest(USERS).update_one(
                {"_id": user_id, "password_hash": old}, {"$set": {"password_hash": new}}
            )

    async def rename(self, seen: Stored, *, username: str | None = None, email: str | None = None) -> Stored | None:
        """Set a user's names; None leaves one as it is. Returns the user, None when there is none any more.

        Raises Duplicate, naming `username` or `email`, DocumentRefused, and Contended, also when the address or the
        password is not what it was in `seen`, by which the caller decided that this may be done.
        """
        changes: dict[str, Any] = {}
        if username is not None:
            changes |= {"username": username.strip(), "username_key": fold(username)}
        if email is not None:
            changes |= {"email": email.strip(), "email_key": fold(email)}
        renamed = await self._change(
            seen["_id"], changes, {name: seen.get(name) for name in ("email", "password_hash")}
        )
        if renamed is None and await self.password_hash(seen["_id"]) is not None:
            raise Contended("the account was changed meanwhile; nothing was written")
        return renamed

    async def change_password(self, user_id: ObjectId, old: str, new: str) -> bool:
        """Store the hash of a new password. False when the stored hash is not `old` any more. Raises Contended."""
        return await self._change(user_id, {"password_hash": new}, {"password_hash": old}) is not None

    async def _change(
        self, user_id: ObjectId, changes: Mapping[str, Any], expected: Mapping[str, Any]
    ) -> Stored | None:
        """Write `changes` while the user has the `expected` values; None when there is no such user any more."""
        for _ in range(_ATTEMPTS):
            with driver_errors():
                stored = await self._database.latest(USERS).find_one({"_id": user_id})
            if stored is None or any(stored.get(name) != value for name, value in expected.items()):
                return None
            revision = stored.get("revision")
            counted = {"revision": revision + 1} if isinstance(revision, int) else {}
            # What is changed here, users change of themselves.
            bookkeeping = {"updated_at": utc_now(), "updated_by": author_of(user_id)}
            new = stored | dict(changes) | bookkeeping | counted
            try:
                async with self._database.session() as session:
                    with driver_errors():
                        if await self._database.replace_if_unchanged(USERS, stored, new, session):
                            return new
            except Duplicate as error:
                raise Duplicate([_PUBLIC_NAMES.get(name, name) for name in error.fields]) from None
            except WriteError:
                fault = Fault(
                    ("body",), "the account's document breaks the rules; an admin can repair it", "unstorable"
                )
                raise DocumentRefused([fault]) from None
        raise Contended("the account kept changing; nothing was written")

    async def password_hash(self, user_id: ObjectId) -> str | None:
        """The hash that is stored now; None when the user is gone."""
        with driver_errors():
            user = await self._database.latest(USERS).find_one({"_id": user_id}, {"password_hash": 1})
        return None if user is None else str(user.get("password_hash", ""))

    @contextlib.asynccontextmanager
    async def keeping_an_admin(self, user_id: ObjectId | None) -> AsyncIterator[None]:
        """Hold this while a user stops being an admin, or a user at all.

        Raises LastAdmin when nobody else is one who can sign in, and Contended. Of two admins who remove each other at
        the same moment, in this process or another, the second one is refused.
        """
        async with self._removal, self._lease("admin_removal"):
            with driver_errors():
                found = await self._database.latest(USERS).find({"roles": "admin"}).to_list(None)
            admins = [principal for user in found if (principal := principal_from(user)) and "admin" in principal.roles]
            if [admin.user_id for admin in admins] == [user_id]:
                raise LastAdmin("this is the last admin who can sign in; make another one first")
            yield

    @contextlib.asynccontextmanager
    async def _lease(self, name: str) -> AsyncIterator[None]:
        """Exclude other processes; one that dies excludes them for LEASE."""
        meta, holder = self._database.latest("headwater_meta"), uuid.uuid4().hex
        deadline = utc_now() + LEASE
        while (now := utc_now()) < deadline:
            try:
                with driver_errors():
                    await meta.find_one_and_update(
                        {"_id": name, "until": {"$lt": now}},
                        {"$set": {"holder": holder, "until": now + LEASE}},
                        upsert=True,
                    )
                break
            except Duplicate:
                await asyncio.sleep(0.05)
        else:
            raise Contended("another process holds the lease")
        try:
            yield
        finally:
            with driver_errors():
                await meta.update_one({"_id": name, "holder": holder}, {"$set": {"until": now - LEASE}})

    async def has_admin(self) -> bool:
        """Whether any admin exists."""
        with driver_errors():
            return await self._database.latest(USERS).find_one({"roles": "admin"}) is not None


def is_alive(session: Mapping[str, Any] | None) -> bool:
    """Whether a stored session still stands. (Its natural end is the end of its tokens, and needs no check.)"""
    return session is not None and session.get("ended_at") is None


def public_user(user: Mapping[str, Any]) -> dict[str, Any]:
    """What a user is told of their own account."""
    names = ("username", "email", "roles", "is_active", "created_at")
    return {"id": str(user["_id"])} | {name: public_value(user.get(name)) for name in names}
