"""This worker's connections, and the fan-out of changes to them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections import Counter
from collections.abc import Iterator

from documents import ANONYMOUS, Change, Entry, Position, PositionCodec, Principal, Reset, Terms
from realtime import protocol
from realtime.connections import Connection, Origin, Resolve, SubscribeRequest, Transport
from realtime.delays import Delays
from realtime.feed import Feed
from realtime.history import concerns
from realtime.protocol import CloseCode
from realtime.recovery import Recovery
from realtime.snapshots import Snapshots
from realtime.subscriptions import State, Subscription, reset_reason
from realtime.views import View, ViewIndex

logger = logging.getLogger("headwater.connections")

MAX_RIGHTS_CHANGES = 10_000
#: A client may come from a worker that was ahead of this one, above all when this one has just started. It is given so
#: long to come as far, before the client has to forget what it has.
CATCH_UP = dt.timedelta(seconds=5)

_SOMEWHERE = Origin()


class ConnectionManager:
    """All connections of this worker. Listens to the feed and fans each change out to the views' subscribers.

    Fan-out never awaits: a slow socket costs its own outbox and delays nobody.
    """

    def __init__(
        self,
        feed: Feed,
        views: ViewIndex,
        snapshots: Snapshots,
        positions: PositionCodec,
        *,
        outbox_max_bytes: int,
    ) -> None:
        self.feed = feed
        self.views = views
        self.snapshots = snapshots
        self.positions = positions
        #: Counters since the start, for metrics: events put before subscribers, connections opened by transport, and
        #: closed by the server by code, resets by reason, and the delays of events from commit to socket.
        self.deliveries = 0
        self.opened: Counter[Transport] = Counter()
        self.closed: Counter[CloseCode] = Counter()
        self.resets: Counter[protocol.ResetReason] = Counter()
        self.delays = Delays()
        self._outbox_max_bytes = outbox_max_bytes
        self._connections: set[Connection] = set()
        self._by_user: dict[object, set[Connection]] = {}
        self._rights_changed: dict[object, Position] = {}
        self._rights_unknown = Position.ZERO
        self._tasks: list[asyncio.Task[None]] = []
        self.draining = False
        #: How to reach back behind this worker's history; None where there is no way.
        self.recovery: Recovery | None = None

    def start(self) -> None:
        """Listen to the feed and send heartbeats."""
        self.feed.add_listener(self._fan_out)
        self._tasks = [
            asyncio.create_task(self._beat(), name="heartbeats"),
            asyncio.create_task(self._watch_feed(), name="feed watch"),
        ]

    async def stop(self) -> None:
        """End all connections' tasks and the snapshot reads."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._connections):
            await connection.end()
        await self.snapshots.stop()

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections))

    def of_user(self, user_id: object) -> list[Connection]:
        """The connections that a user has here."""
        return list(self._by_user.get(user_id, ()))

    def connect(self, principal: Principal = ANONYMOUS, origin: Origin = _SOMEWHERE) -> Connection:
        """A new connection. The transport must call its `end`, and count in `closed` the code that it closes with."""
        self.opened[origin.transport] += 1
        connection = Connection(self, principal, origin, self._outbox_max_bytes)
        self._connections.add(connection)
        self._by_user.setdefault(principal.user_id, set()).add(connection)
        if self.draining:
            self._go_away(connection)
        elif self.feed.failed.is_set():
            connection.close(CloseCode.SERVICE_RESTART)
        return connection

    def rename(self, connection: Connection, principal: Principal) -> None:
        """The connection now belongs to `principal`."""
        self._forget(connection)
        connection.principal = principal
        self._by_user.setdefault(principal.user_id, set()).add(connection)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._connections.discard(connection)
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        user_id = connection.principal.user_id
        if (connections := self._by_user.get(user_id)) is not None:
            connections.discard(connection)
            if not connections:
                del self._by_user[user_id]

    def drain(self) -> None:
        """The worker is about to stop: tell everybody to reconnect elsewhere, and close. Safe to call twice."""
        if not self.draining:
            self.draining = True
            for connection in list(self._connections):
                self._go_away(connection)

    @staticmethod
    def _go_away(connection: Connection) -> None:
        connection.send_message(protocol.GoAway(reason="draining", retry_after_ms=(500, 5_000)))
        connection.close(CloseCode.DRAINING)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(protocol.HEARTBEAT_SECONDS)
            for connection in list(self._connections):
                connection.beat()

    async def _watch_feed(self) -> None:
        await self.feed.failed.wait()
        # Without a feed there is nothing to be had here, and to go on would be silence.
        for connection in list(self._connections):
            connection.close(CloseCode.SERVICE_RESTART)

    def _fan_out(self, entry: Entry) -> None:
        if isinstance(entry, Change):
            for view in self.views.of_collection(entry.collection):
                # Subscriptions that are not live yet find the change in the history.
                live = [s for s in view.subscriptions if s.state is State.LIVE]
                if live:
                    self._deliver(view, entry, live)
        elif isinstance(entry, Reset):
            self.snapshots.reset(entry.collections)
            reason = reset_reason(entry)
            for view in self.views:
                if concerns(entry, view.resource.name):
                    for subscription in list(view.subscriptions):
                        subscription.reset(reason)

    def _deliver(self, view: View, change: Change, live: list[Subscription]) -> None:
        try:
            frame = view.event(change)
        except Exception:
            # One document that cannot be encoded must neither stop the feed nor be skipped in silence.
            logger.exception("a change of %s cannot be made into an event", change.collection)
            for subscription in live:
                subscription.reset(protocol.ResetReason.HISTORY_LOST)
            return
        if frame is not None:
            self.deliveries += len(live)
            for subscription in live:
                subscription.deliver(frame)

    def user_changed(self, user_id: object, principal: Principal | None, position: Position) -> None:
        """A user's rights are now those of `principal` (None: the user may no longer sign in), as of `position`."""
        self.note_rights_change(user_id, position)
        for connection in list(self._by_user.get(user_id, ())):
            if principal is None:
                connection.close(CloseCode.FORBIDDEN)
            else:
                connection.move(principal.within(connection.principal.scopes))

    def note_rights_change(self, user_id: object, position: Position) -> None:
        """Replay nothing to this user from before `position`."""
        if isinstance(user_id, dict | list):
            return  # somebody wrote into a key what is no id
        self._rights_changed[user_id] = max(position, self._rights_changed.get(user_id, Position.ZERO))
        if len(self._rights_changed) > MAX_RIGHTS_CHANGES:
            # Positions below the floor of the history cannot be resumed from in any case.
            floor = self.feed.history.floor
            self._rights_changed = {user: at for user, at in self._rights_changed.items() if at >= floor}

    def rights_unknown(self, position: Position, resolve: Resolve) -> None:
        """Any user's rights may have changed, as of `position`."""
        self.note_rights_unknown(position)
        for connection in list(self._connections):
            connection.recheck(resolve)

    def note_rights_unknown(self, position: Position) -> None:
        """Replay nothing to any user from before `position`."""
        self._rights_unknown = max(position, self._rights_unknown)

    def credential_changed(self, collection: str, id: object, terms: Terms | None, position: Position) -> None:
        """A session or key is now good for `terms` (None: it has ended), as of `position`."""
        for connection in list(self._connections):
            credential = connection.credential
            if credential is None or (credential.collection, credential.id) != (collection, id):
                continue
            if terms is None:
                connection.close(CloseCode.FORBIDDEN)
                continue
            self.note_rights_change(credential.user_id, position)
            connection.move(connection.principal.within(terms.scopes))
            if credential.is_key:
                connection.watch_expiry(terms.ends_at)

    def recoverable(self, request: SubscribeRequest, view: str, principal: Principal) -> Position | None:
        """The position to resume after; None when what was missed cannot be told exactly. All or nothing."""
        if request.since is None:
            return None
        since_view, position = request.since
        if since_view != view or position > self.feed.head or position <= self.feed.forked_at:
            return None
        changed = self._rights_changed.get(principal.user_id)
        if changed is not None and position < changed:
            return None
        if principal.signed_in and position < self._rights_unknown:
            return None
        return position if self.feed.history.covers(position, request.query.resource.name) else None

    def within_reach(self, request: SubscribeRequest, view: str) -> bool:
        """Whether `recover` may find what `recoverable` does not."""
        if request.since is None:
            return False
        since_view, position = request.since
        if since_view != view or position <= self.feed.forked_at:
            return False
        return position > self.feed.head or (self.recovery is not None and position < self.feed.history.floor)

    async def recover(self, request: SubscribeRequest, view: str, principal: Principal) -> Position | None:
        """As `recoverable`, after reaching back behind this worker's history, or letting it come to the position.

        Raises DatabaseAway.
        """
        if request.since is not None:
            position = request.since[1]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CATCH_UP.total_seconds()):
                    await self.feed.passed(position)
            if self.recovery is not None:
                await self.recovery.reach(position)
        return self.recoverable(request, view, principal)
