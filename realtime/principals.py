"""Whom a session or an API key speaks for, from a cache that the feed keeps right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from documents import (
    API_KEYS,
    SESSIONS,
    USERS,
    Beat,
    Change,
    Credential,
    Credentials,
    Entry,
    Reset,
    Standing,
    Stored,
    principal_from,
    utc_now,
)
from realtime.manager import ConnectionManager

MAX_CACHED = 20_000


@dataclass(eq=False)
class _Reading:
    """A read of the database under way. `stale`: what it reads has changed meanwhile."""

    credential: Credential
    stale: bool = False


class Principals:
    """Resolves credentials to principals without a query, as long as neither the user nor the credential changes.

    A change of a user, session or key reaches the cache and the live connections through the feed, at its own position.
    """

    def __init__(self, credentials: Credentials, manager: ConnectionManager) -> None:
        self._credentials = credentials
        self._manager = manager
        self._cached: dict[Credential, Standing] = {}
        self._readings: set[_Reading] = set()

    async def resolve(self, credential: Credential) -> Standing | None:
        """Whom the credential speaks for; None when the user or the credential is gone or has ended.

        Raises DatabaseAway.
        """
        standing = self._cached.get(credential)
        while standing is None:
            reading = _Reading(credential)
            self._readings.add(reading)
            try:
                read = await self._credentials.standing(credential)
            finally:
                self._readings.discard(reading)
            # A change that the feed brought while we read has told only the connections that were there. What we read
            # may be older, and a connection made from it would keep the old rights for ever.
            if reading.stale:
                continue
            if read is None:
                return None
            if len(self._cached) >= MAX_CACHED:
                self._cached.clear()
            self._cached[credential] = standing = read
        return standing if standing.holds_at(utc_now()) else None

    def on_entry(self, entry: Entry) -> None:
        """A listener of the feed. Add it before the connection manager's, so that both act at the same position."""
        if isinstance(entry, Beat):
            return
        if not isinstance(entry, Change):
            if entry.collections is None or entry.collections & {USERS, SESSIONS, API_KEYS}:
                for reading in self._readings:
                    reading.stale = True
                self._cached.clear()
                self._manager.rights_unknown(entry.position, self.resolve)
        elif entry.collection == USERS:
            for reading in self._readings:
                if reading.credential.user_id == entry.document_id:
                    reading.stale = True
            self._user_changed(entry)
        elif entry.collection in (SESSIONS, API_KEYS):
            self._credential_changed(entry)

    def on_past(self, entries: Sequence[Entry]) -> None:
        """Hear of entries from before this worker's history: nothing older than a change of rights is replayed."""
        for entry in entries:
            if isinstance(entry, Reset):
                if entry.collections is None or entry.collections & {USERS, SESSIONS, API_KEYS}:
                    self._manager.note_rights_unknown(entry.position)
            elif isinstance(entry, Change) and entry.before is not None:
                if entry.collection == USERS and principal_from(entry.before) != principal_from(entry.after):
                    self._manager.note_rights_change(entry.document_id, entry.position)
                elif entry.collection == API_KEYS:
                    self._manager.note_rights_change(entry.before.get("user_id"), entry.position)

    def _user_changed(self, change: Change) -> None:
        before, after = principal_from(change.before), principal_from(change.after)
        if before != after:
            user_id = change.document_id
            self._cached = {key: value for key, value in self._cached.items() if key.user_id != user_id}
            if change.before is not None:
                self._manager.user_changed(user_id, after, change.position)

    def _credential_changed(self, change: Change) -> None:
        collection, before, after = change.collection, change.before, change.after
        terms = self._credentials.terms(collection, after)
        if before is None or (terms == self._credentials.terms(collection, before) and _same_holder(before, after)):
            return  # such as a refresh, which changes nothing of what its session is good for
        name = (collection, change.document_id)
        for reading in self._readings:
            if (reading.credential.collection, reading.credential.id) == name:
                reading.stale = True
        self._cached = {key: value for key, value in self._cached.items() if (key.collection, key.id) != name}
        self._manager.credential_changed(*name, terms if _same_holder(before, after) else None, change.position)


def _same_holder(before: Stored, after: Stored | None) -> bool:
    """Whether the credential still is the same user's, and opened by the same secret."""
    return after is not None and all(before.get(name) == after.get(name) for name in ("user_id", "key_hash"))
