"""Canaries: users whom nobody can sign in as, made to see how long changes take, and taken away again."""

from __future__ import annotations

import datetime as dt
import re
import secrets
from typing import Final

from bson import ObjectId

from documents.accounts import SESSIONS, USERS, Accounts
from documents.database import Database, driver_errors
from documents.resources import Registry, utc_now
from documents.sessions import Renewal, Sessions

_PREFIX: Final = "doctor-"
_DOMAIN: Final = "@example.org"
#: No hash, so no password fits it.
_NO_PASSWORD: Final = "!"  # noqa: S105 - none, as said
#: What is older was left by somebody who was killed.
_LEFT_AFTER: Final = dt.timedelta(minutes=10)
_LIFETIME: Final = dt.timedelta(minutes=5)


class Canary:
    """One such user, with sessions that last five minutes at most. `remove` it.

    A session is a live document that its owner may read, so what happens to one shows how changes travel: `sign_in`
    writes straight into the database, and who signs out writes through the API.
    """

    def __init__(self, database: Database, registry: Registry, secret: bytes) -> None:
        self._database = database
        self._accounts = Accounts(database, registry)
        self._sessions = Sessions(database, registry, secret, _LIFETIME)
        self.user_id: ObjectId | None = None

    async def create(self) -> None:
        """Make the user. Raises DatabaseAway, and DocumentRefused."""
        name = f"{_PREFIX}{secrets.token_hex(6)}"
        user = await self._accounts.register(name, f"{name}{_DOMAIN}", _NO_PASSWORD)
        self.user_id = user["_id"]

    async def sign_in(self) -> Renewal:
        """Start a session."""
        assert self.user_id is not None  # noqa: S101 - `create` comes first
        return await self._sessions.start(self.user_id)

    async def remove(self) -> None:
        """Take the user and its sessions away, and those that others have left behind. Safe to call twice."""
        name = {"$regex": f"^{re.escape(_PREFIX)}[0-9a-f]{{12}}$"}
        left = {"username": name, "password_hash": _NO_PASSWORD, "created_at": {"$lt": utc_now() - _LEFT_AFTER}}
        with driver_errors():
            users = self._database.latest(USERS)
            ids = [user["_id"] async for user in users.find(left, {"_id": 1})]
            if self.user_id is not None:
                ids.append(self.user_id)
            await self._database.latest(SESSIONS).delete_many({"user_id": {"$in": ids}})
            await users.delete_many({"_id": {"$in": ids}})
