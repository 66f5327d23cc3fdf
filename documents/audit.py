"""The audit: who did what to an account or to somebody's document, for people who ask later, in mongosh.

    db.headwater_audit.find({user_id: ObjectId("…")}).sort({at: -1})

An internal collection: it is served nowhere, and its writes are not part of the change stream. Nothing is ever removed
from it by the server.
"""

from __future__ import annotations

import enum
from typing import Any

from bson import ObjectId
from pymongo import IndexModel

from documents.database import Database, driver_errors
from documents.resources import utc_now

AUDIT = "headwater_audit"

_INDEXES = [
    IndexModel([("at", -1)], name="newest"),
    IndexModel([("user_id", 1), ("at", -1)], name="user_newest"),
    IndexModel([("event", 1), ("at", -1)], name="event_newest"),
]


class AuditEvent(enum.StrEnum):
    """What an entry about an account is about."""

    REGISTERED = "registered"
    ADMIN_CREATED = "admin_created"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - an event's name
    PASSWORD_RESET = "password_reset"  # noqa: S105 - an event's name
    ACCOUNT_CHANGED = "account_changed"
    USER_CHANGED = "user_changed"
    USER_DELETED = "user_deleted"
    SESSION_REVOKED = "session_revoked"
    CONNECTIONS_CLOSED = "connections_closed"
    KEY_CREATED = "key_created"


class Audit:
    """Writes entries: `{at, event, user_id, by, details}`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def install(self) -> None:
        """Create the named indexes. Safe to repeat, and while several processes start."""
        with driver_errors():
            await self._database.raw[AUDIT].create_indexes(_INDEXES)

    async def record(
        self, event: AuditEvent | str, user_id: ObjectId | None, *, by: ObjectId | None = None, **details: Any
    ) -> None:
        """Add an entry now. `user_id` is whom it is about, `by` who did it; None for nobody who is signed in.

        `event` of a class's action is `collection.action`. `details` are BSON values, and never
        secrets. Raises DatabaseAway.
        """
        entry = {"at": utc_now(), "event": str(event), "user_id": user_id, "by": by, "details": details}
        with driver_errors():
            await self._database.latest(AUDIT).insert_one(entry)
