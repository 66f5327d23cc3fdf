"""Connections of this worker, and the manager that fans events out to them."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass

from documents import (
    ANONYMOUS,
    Change,
    Entry,
    Position,
    PositionCodec,
    Principal,
    Reset,
    Sort,
    rfc3339,
)
from documents import ResetReason as FeedReset
from realtime import protocol
from realtime.feed import Feed
from realtime.frames import Frame, message_frame
from realtime.outbox import Outbox
from realtime.protocol import CloseCode, ErrorCode
from realtime.snapshots import Snapshots
from realtime.subscriptions import State, Subscription
from realtime.views import View, ViewIndex, ViewQuery

logger = logging.getLogger("headwater.connections")

#: How long a slow consumer may take to drain before it is disconnected.
DRAIN_TIMEOUT = dt.timedelta(seconds=10)
MAX_WAITING_PINGS = 100
MAX_RIGHTS_CHANGES = 10_000
EXPIRY_WARNING = dt.timedelta(seconds=60)

_RESET_REASONS = {
    FeedReset.DROPPED: protocol.ResetReason.SCHEMA_CHANGED,
    FeedReset.RENAMED: protocol.ResetReason.SCHEMA_CHANGED,
}


class Refused(Exception):
    """A client's request cannot be carried out; the connection stays."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class SubscribeRequest:
    """A subscription as a client asks for it, parsed and checked."""

    id: str
    query: ViewQuery
    sort: Sort
    limit: int
    snapshot: bool = True
    since: tuple[str, Position] | None = None


class Connection:
    """One client: who it is, what it subscribes to, and what waits to be sent to it.

    The transport (WebSocket or Server-Sent Events) takes frames from `outbox` and ends when `closing` is set.
    """

    def __init__(self, manager: ConnectionManager, principal: Principal, max_bytes: int) -> None:
        self.id = secrets.token_urlsafe(9)
        self.principal = principal
        self.outbox = Outbox(max_bytes)
        self.subscriptions: dict[str, Subscription] = {}
        self.closing: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
        self.session_id: str | None = None
        self._manager = manager
        self._timers: list[asyncio.TimerHandle] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def feed(self) -> Feed:
        """The worker's feed."""
        return self._manager.feed

    @property
    def views(self) -> ViewIndex:
        """The worker's views."""
        return self._manager.views

    @property
    def snapshots(self) -> Snapshots:
        """The worker's snapshot reader."""
        return self._manager.snapshots

    @property
    def positions(self) -> PositionCodec:
        """How positions are written for clients."""
        return self._manager.positions

    def send(self, frame: Frame) -> None:
        """Put a message of the connection into the outbox; a client that does not even take those is disconnected."""
        if not self.outbox.put_control(frame):
            self.close(CloseCode.SLOW_CONSUMER)

    def send_message(self, message: protocol.ServerMessage) -> None:
        """The same for a message that is not encoded yet."""
        self.send(message_frame(message))

    def close(self, code: CloseCode) -> None:
        """Ask the transport to close. The first code counts."""
        if not self.closing.done():
            self.closing.set_result(code)

    async def drained(self) -> None:
        """Wait until the outbox is almost empty; disconnect the client when that takes too long."""
        try:
            await asyncio.wait_for(self.outbox.below(self.outbox.max_bytes // 8), DRAIN_TIMEOUT.total_seconds())
        except TimeoutError:
            self.close(CloseCode.SLOW_CONSUMER)
            await asyncio.Event().wait()  # until the transport ends this connection's tasks

    def authenticate(self, principal: Principal, expires_at: dt.datetime, session_id: str | None = None) -> None:
        """Take on a user, or renew the token of the present one. The caller has checked that this is allowed."""
        rights_changed = (principal.user_id, principal.roles) != (
            self.principal.user_id,
            self.principal.roles,
        )
        self._manager.rename(self, principal)
        self.session_id = session_id
        self.watch_expiry(expires_at)
        if rights_changed:
            self.move(principal)

    def move(self, principal: Principal) -> None:
        """The rights of this connection's user are now those of `principal`."""
        self.principal = principal
        for subscription in self.subscriptions.values():
            subscription.move(principal)

    def watch_expiry(self, expires_at: dt.datetime) -> None:
        """Warn before the token ends, and close when it does. A later call replaces an earlier one."""
        for timer in self._timers:
            timer.cancel()
        loop = asyncio.get_running_loop()
        left = (expires_at - dt.datetime.now(dt.UTC)).total_seconds()
        warning = EXPIRY_WARNING.total_seconds()
        seconds = max(0, round(min(left, warning)))
        self._timers = [
            loop.call_later(max(0.0, left - warning), self.send_message, protocol.AuthExpiring(seconds=seconds)),
            loop.call_later(max(0.0, left), self.close, CloseCode.TOKEN_EXPIRED),
        ]

    def subscribe(self, request: SubscribeRequest) -> None:
        """Begin a subscription. Answers `subscribed` at once; the rest follows. Raises Refused."""
        if request.id in self.subscriptions:
            raise Refused(ErrorCode.DUPLICATE_ID, f"the subscription {request.id} exists already")
        if len(self.subscriptions) >= protocol.MAX_SUBSCRIPTIONS:
            raise Refused(
                ErrorCode.TOO_MANY_SUBSCRIPTIONS,
                f"at most {protocol.MAX_SUBSCRIPTIONS} subscriptions a connection",
            )
        view = self.views.attach(request.query, self.principal)
        for other in self.subscriptions.values():
            if other.view is view:
                raise Refused(ErrorCode.ALREADY_SUBSCRIBED, f"subscription {other.id} has this view already")
        resume_after = self._manager.recoverable(request, view.id, self.principal)
        subscription = Subscription(
            self, request.id, request.query, view, request.sort, request.limit, snapshot=request.snapshot
        )
        self.subscriptions[request.id] = subscription
        recovered = None if request.since is None else resume_after is not None
        self.send_message(protocol.Subscribed(id=request.id, view=view.id, recovered=recovered))
        if recovered is False and request.since is not None:
            stale = request.since[0]
            self.send_message(protocol.Reset(view=stale, reason=protocol.ResetReason.HISTORY_LOST))
        subscription.start(resume_after)

    async def unsubscribe(self, id: str, reason: str) -> None:
        """End a subscription. Raises Refused for one that does not exist."""
        subscription = self.subscriptions.pop(id, None)
        if subscription is None:
            raise Refused(ErrorCode.UNKNOWN_SUBSCRIPTION, f"there is no subscription {id}")
        await subscription.end()
        self.send_message(protocol.Unsubscribed(id=id, reason=reason))

    def unsubscribe_soon(self, subscription: Subscription, reason: str) -> None:
        """End a subscription from within its own task."""
        if self.subscriptions.get(subscription.id) is subscription:
            self._spawn(self.unsubscribe(subscription.id, reason))

    def ping(self, id: str, position: Position | None) -> None:
        """Answer with `pong` once everything up to `position` has been sent."""
        if position is None:
            self.send_message(protocol.Pong(id=id))
        elif len(self._tasks) >= MAX_WAITING_PINGS:
            raise Refused(ErrorCode.TOO_MANY_PINGS, f"at most {MAX_WAITING_PINGS} pings wait at a time")
        else:
            self._spawn(self._pong_after(id, position))

    async def _pong_after(self, id: str, position: Position) -> None:
        await self.feed.passed(position)
        for subscription in list(self.subscriptions.values()):
            await subscription.settled()
        self.send_message(protocol.Pong(id=id))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def beat(self) -> None:
        """Send the heartbeat position, unless a view is on its way between two states."""
        states = {subscription.state for subscription in self.subscriptions.values()}
        if states & {State.CATCHING_UP, State.RESETTING}:
            return
        text = self.positions.encode(self.feed.head)
        reached = protocol.PositionReached(position=text, as_of=rfc3339(dt.datetime.now(dt.UTC)))
        ready = [s.view.id for s in self.subscriptions.values() if s.state is State.LIVE]
        # On Server-Sent Events there is one view, so the heartbeat can move the id that a client resumes from.
        view, resume = (ready[0], text) if len(ready) == 1 else (None, None)
        self.send(message_frame(reached, view=view, position=resume))

    async def end(self) -> None:
        """Release everything. Called by the transport, whatever ended it; safe to call twice."""
        for timer in self._timers:
            timer.cancel()
        self._manager.remove(self)
        for subscription in list(self.subscriptions.values()):
            await subscription.end()
        self.subscriptions.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


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
        self.deliveries = 0
        self._outbox_max_bytes = outbox_max_bytes
        self._connections: set[Connection] = set()
        self._by_user: dict[object, set[Connection]] = {}
        self._rights_changed: dict[object, Position] = {}
        self._heartbeat: asyncio.Task[None] | None = None
        self.draining = False

    def start(self) -> None:
        """Listen to the feed and send heartbeats."""
        self.feed.add_listener(self._fan_out)
        self._heartbeat = asyncio.create_task(self._beat(), name="heartbeats")

    async def stop(self) -> None:
        """End all connections' tasks and the snapshot reads."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            await asyncio.gather(self._heartbeat, return_exceptions=True)
        for connection in list(self._connections):
            await connection.end()
        await self.snapshots.stop()

    def __len__(self) -> int:
        return len(self._connections)

    def connect(self, principal: Principal = ANONYMOUS) -> Connection:
        """A new connection. The transport must call its `end`."""
        connection = Connection(self, principal, self._outbox_max_bytes)
        self._connections.add(connection)
        self._by_user.setdefault(principal.user_id, set()).add(connection)
        if self.draining:
            self._go_away(connection)
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

    def _fan_out(self, entry: Entry) -> None:
        if isinstance(entry, Change):
            for view in self.views.of_collection(entry.collection):
                # Subscriptions that are not live yet find the change in the history.
                live = [s for s in view.subscriptions if s.state is State.LIVE]
                if live:
                    self._deliver(view, entry, live)
        elif isinstance(entry, Reset):
            reason = _RESET_REASONS.get(entry.reason, protocol.ResetReason.HISTORY_LOST)
            for view in self.views:
                if entry.collections is None or view.resource.name in entry.collections:
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
        self._rights_changed[user_id] = position
        if len(self._rights_changed) > MAX_RIGHTS_CHANGES:
            # Positions below the floor of the history cannot be resumed from in any case.
            floor = self.feed.history.floor
            self._rights_changed = {user: at for user, at in self._rights_changed.items() if at >= floor}
        for connection in list(self._by_user.get(user_id, ())):
            if principal is None:
                connection.close(CloseCode.FORBIDDEN)
            else:
                connection.move(principal)

    def session_ended(self, session_id: str) -> None:
        """A session was ended: close its connections."""
        for connection in list(self._connections):
            if connection.session_id == session_id:
                connection.close(CloseCode.FORBIDDEN)

    def recoverable(self, request: SubscribeRequest, view: str, principal: Principal) -> Position | None:
        """The position to resume after; None when what was missed cannot be told exactly. All or nothing."""
        if request.since is None:
            return None
        since_view, position = request.since
        if since_view != view or position > self.feed.head:
            return None
        changed = self._rights_changed.get(principal.user_id)
        if changed is not None and position < changed:
            return None
        entries = self.feed.history.after(position)
        if entries is None:
            return None
        for entry in entries:
            if isinstance(entry, Reset) and (
                entry.collections is None or request.query.resource.name in entry.collections
            ):
                return None
        return position
