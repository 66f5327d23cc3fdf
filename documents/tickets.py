"""Tickets: what a browser opens a live connection with, where it can send no header. Short-lived, and good once.

One document per ticket in `headwater_tickets`, an internal collection. It names the session or key that the ticket
stands for; of the ticket itself only the SHA-256 is stored.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from pymongo import IndexModel

from documents.codec import Stored
from documents.credentials import Credential
from documents.database import Database, driver_errors
from documents.resources import utc_now

TICKETS = "headwater_tickets"
LIFETIME = dt.timedelta(seconds=30)

_INDEXES = [IndexModel([("expires_at", 1)], name="expire_after_end", expireAfterSeconds=0)]


@dataclass(frozen=True, slots=True)
class Admission:
    """What a ticket was good for: a credential, and when the token that asked for it ends (None: never)."""

    credential: Credential
    ends_at: dt.datetime | None


class Tickets:
    """The tickets of one database. `clock` gives the present in UTC."""

    def __init__(self, database: Database, clock: Callable[[], dt.datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def install(self) -> None:
        """Create the named index. Safe to repeat, and while several processes start."""
        with driver_errors():
            await self._database.raw[TICKETS].create_indexes(_INDEXES)

    async def issue(self, admission: Admission) -> str:
        """A new ticket, in clear here and nowhere else."""
        ticket = secrets.token_urlsafe(32)
        credential = admission.credential
        document = {
            "_id": _hash(ticket),
            "collection": credential.collection,
            "credential_id": credential.id,
            "user_id": credential.user_id,
            "secret_hash": credential.secret_hash,
            "ends_at": admission.ends_at,
            "expires_at": self._clock() + LIFETIME,
        }
        with driver_errors():
            await self._database.latest(TICKETS).insert_one(document)
        return ticket

    async def redeem(self, ticket: str) -> Admission | None:
        """Spend a ticket; None for one that is not known, has been spent or has expired.

        Finding and removing it is one operation of the database, so of any number of processes at once one succeeds. A
        ticket is spent even if the caller then is cancelled, or goes away.
        """
        # The TTL index may take a minute to come by.
        wanted = {"_id": _hash(ticket), "expires_at": {"$gt": self._clock()}}
        with driver_errors():
            found: Stored | None = await self._database.latest(TICKETS).find_one_and_delete(wanted)
        if found is None:
            return None
        credential = Credential(found["collection"], found["credential_id"], found["user_id"], found["secret_hash"])
        return Admission(credential, found["ends_at"])


def _hash(ticket: str) -> str:
    # A fast hash will do: nobody guesses 256 random bits.
    return hashlib.sha256(ticket.encode(errors="surrogatepass")).hexdigest()
