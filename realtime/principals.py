"""Who a token speaks for, from a cache that the feed keeps right."""

from __future__ import annotations

from dataclasses import dataclass

from documents import Accounts, Beat, Change, Entry, Principal, is_alive, parse_user_id, principal_from
from realtime.manager import ConnectionManager

USERS = "users"
SESSIONS = "sessions"
MAX_CACHED = 20_000


@dataclass(eq=False)
class _Reading:
    """A read of the database under way. `stale`: what it reads has changed meanwhile."""

    user_id: str
    session_id: str
    stale: bool = False


class Principals:
    """Resolves (user, session) to a principal without a query, as long as neither changes.

    A change of a user or session reaches the cache and the live connections through the feed, at its own position.
    """

    def __init__(self, accounts: Accounts, manager: ConnectionManager) -> None:
        self._accounts = accounts
        self._manager = manager
        self._cached: dict[tuple[str, str], Principal] = {}
        self._readings: set[_Reading] = set()

    async def resolve(self, user_id: str, session_id: str) -> Principal | None:
        """The principal, or None when the user or the session is gone. Raises DatabaseAway."""
        user, session = parse_user_id(user_id), parse_user_id(session_id)
        if user is None or session is None:
            return None
        # As the feed writes them: a token may spell an id in capitals.
        key = (str(user), str(session))
        if (known := self._cached.get(key)) is not None:
            return known
        while True:
            reading = _Reading(*key)
            self._readings.add(reading)
            try:
                principal = await self._accounts.principal(user, session)
            finally:
                self._readings.discard(reading)
            # A change that the feed brought while we read has told only the connections that were there. What we read
            # may be older, and a connection made from it would keep the old rights for ever.
            if not reading.stale:
                break
        if principal is not None:
            if len(self._cached) >= MAX_CACHED:
                self._cached.clear()
            self._cached[key] = principal
        return principal

    def on_entry(self, entry: Entry) -> None:
        """A listener of the feed. Add it before the connection manager's, so that both act at the same position."""
        if isinstance(entry, Beat):
            return
        if not isinstance(entry, Change):
            if entry.collections is None or entry.collections & {USERS, SESSIONS}:
                self._mark_stale()
                self._cached.clear()
                self._manager.rights_unknown(entry.position, self.resolve)
        elif entry.collection == USERS:
            self._mark_stale(user_id=str(entry.document_id))
            self._user_changed(entry)
        elif entry.collection == SESSIONS and not is_alive(entry.after):
            ended = str(entry.document_id)
            self._mark_stale(session_id=ended)
            self._cached = {key: value for key, value in self._cached.items() if key[1] != ended}
            self._manager.session_ended(ended)

    def _mark_stale(self, *, user_id: str | None = None, session_id: str | None = None) -> None:
        for reading in self._readings:
            if user_id in (None, reading.user_id) and session_id in (None, reading.session_id):
                reading.stale = True

    def _user_changed(self, change: Change) -> None:
        user_id = str(change.document_id)
        before, after = principal_from(change.before), principal_from(change.after)
        if before != after:
            self._cached = {key: value for key, value in self._cached.items() if key[0] != user_id}
            if change.before is not None:
                self._manager.user_changed(change.document_id, after, change.position)
