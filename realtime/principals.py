"""Who a token speaks for, from a cache that the feed keeps right."""

from __future__ import annotations

from documents import Accounts, Beat, Change, Entry, Principal, is_alive, parse_user_id, principal_from
from realtime.connections import ConnectionManager

USERS = "users"
SESSIONS = "sessions"
MAX_CACHED = 20_000


class Principals:
    """Resolves (user, session) to a principal without a query, as long as neither changes.

    A change of a user or session reaches the cache and the live connections through the feed, at its own position.
    """

    def __init__(self, accounts: Accounts, manager: ConnectionManager) -> None:
        self._accounts = accounts
        self._manager = manager
        self._cached: dict[tuple[str, str], Principal] = {}
        #: Counts what may have made a read in progress stale.
        self._generation = 0

    async def resolve(self, user_id: str, session_id: str) -> Principal | None:
        """The principal, or None when the user or the session is gone. Raises DatabaseAway."""
        key = (user_id, session_id)
        if (known := self._cached.get(key)) is not None:
            return known
        user, session = parse_user_id(user_id), parse_user_id(session_id)
        if user is None or session is None:
            return None
        generation = self._generation
        principal = await self._accounts.principal(user, session)
        # If the feed brought a change while we read, what we read may be older than it: answer, but do not keep.
        if principal is not None and generation == self._generation:
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
                self._generation += 1
                self._cached.clear()
        elif entry.collection == USERS:
            self._generation += 1
            self._user_changed(entry)
        elif entry.collection == SESSIONS and not is_alive(entry.after):
            self._generation += 1
            ended = str(entry.document_id)
            self._cached = {key: value for key, value in self._cached.items() if key[1] != ended}
            self._manager.session_ended(ended)

    def _user_changed(self, change: Change) -> None:
        user_id = str(change.document_id)
        before, after = principal_from(change.before), principal_from(change.after)
        if before != after:
            self._cached = {key: value for key, value in self._cached.items() if key[0] != user_id}
            if change.before is not None:
                self._manager.user_changed(change.document_id, after, change.position)
