"""One client's connection: who it is, what it subscribes to, and what waits to be sent to it."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING

from documents import (
    Credential,
    DatabaseAway,
    Position,
    PositionCodec,
    Principal,
    Sort,
    Standing,
    rfc3339,
)
from realtime import protocol
from realtime.feed import Feed
from realtime.frames import Frame, message_frame
from realtime.outbox import Outbox
from realtime.protocol import CloseCode, ErrorCode
from realtime.snapshots import Snapshots
from realtime.subscriptions import State, Subscription
from realtime.views import ViewIndex, ViewQuery

if TYPE_CHECKING:
    from realtime.manager import ConnectionManager

logger = logging.getLogger("headwater.connections")

#: How long a slow consumer may take to drain before it is disconnected.
DRAIN_TIMEOUT = dt.timedelta(seconds=10)
MAX_WAITING_PINGS = 100
EXPIRY_WARNING = dt.timedelta(seconds=60)
RECHECK_SECONDS = 1.0

#: No connection lasts longer, and no timer needs to.
_LONGEST = dt.timedelta(days=365)

#: Whom a credential speaks for now, None when it no longer does. Raises DatabaseAway.
Resolve = Callable[[Credential], Awaitable[Standing | None]]


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


class Transport(enum.StrEnum):
    """How a client is connected."""

    WEBSOCKET = "websocket"
    EVENT_STREAM = "event_stream"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection comes from. `address` is the client's network address, "" where it is not known."""

    transport: Transport = Transport.WEBSOCKET
    address: str = ""


class Connection:
    """One client: who it is, what it subscribes to, and what waits to be sent to it.

    The transport (WebSocket or Server-Sent Events) takes frames from `outbox` and ends when `closing` is set.
    """

    def __init__(self, manager: ConnectionManager, principal: Principal, origin: Origin, max_bytes: int) -> None:
        self.id = secrets.token_urlsafe(9)
        self.origin = origin
        self.opened_at = dt.datetime.now(dt.UTC)
        self.principal = principal
        self.outbox = Outbox(max_bytes)
        self.subscriptions: dict[str, Subscription] = {}
        self.closing: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
        self.credential: Credential | None = None
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

    def send_reset(self, reset: protocol.Reset) -> None:
        """The same for a reset, which is counted."""
        self._manager.resets[reset.reason] += 1
        self.send_message(reset)

    def sent(self, frame: Frame) -> None:
        """The transport has handed over a frame that it had taken."""
        self.outbox.sent(frame.size)
        if frame.committed_at is not None:
            self._manager.delays.note(time.time() - frame.committed_at)

    def close(self, code: CloseCode) -> None:
        """Ask the transport to close. The first code counts.

        From now on no view puts anything into the outbox: the transport may still take a while to send what is there.
        """
        if self.closing.done():
            return
        self.closing.set_result(code)
        for subscription in self.subscriptions.values():
            subscription.stop()
            if code is CloseCode.FORBIDDEN:
                self.outbox.drop_view(subscription.view.id)

    def drop_view(self, view: str) -> None:
        """Take a view's frames back from the outbox, and each `pong` that would vouch for them until it is true."""
        for pong in self.outbox.drop_view(view):
            self._spawn(self._send_when_settled(pong))

    async def room(self, size: int) -> None:
        """Wait until at most `size` bytes are waiting; disconnect the client when it takes nothing for too long."""
        while self.outbox.bytes > size:
            taken = self.outbox.sent_bytes
            try:
                # Not `wait_for`, which until Python 3.12 drops a cancellation that comes when there is room at last
                # (CPython issue 86296): a reset makes room and cancels at once.
                async with asyncio.timeout(DRAIN_TIMEOUT.total_seconds()):
                    await self.outbox.below(size)
            except TimeoutError:
                if self.outbox.sent_bytes == taken:
                    self.close(CloseCode.SLOW_CONSUMER)
                    await asyncio.Event().wait()  # closing has cancelled the subscription that waits here

    async def drained(self) -> None:
        """Wait until the outbox is almost empty; disconnect the client when that takes too long."""
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT.total_seconds()):
                await self.outbox.drained(self.outbox.max_bytes // 8)
        except TimeoutError:
            self.close(CloseCode.SLOW_CONSUMER)
            await asyncio.Event().wait()  # until this connection's tasks are ended

    def authenticate(self, principal: Principal, credential: Credential, expires_at: dt.datetime | None) -> None:
        """Take on a user, or another credential of the present one. The caller has checked that this is allowed."""
        rights_changed = principal.rights != self.principal.rights
        self._manager.rename(self, principal)
        self.credential = credential
        self.watch_expiry(expires_at)
        if rights_changed:
            self.move(principal)

    def move(self, principal: Principal) -> None:
        """The rights of this connection's user are now those of `principal`."""
        self.principal = principal
        for subscription in self.subscriptions.values():
            subscription.move(principal)

    def watch_expiry(self, expires_at: dt.datetime | None) -> None:
        """Warn before the token or key ends, and close when it does (None: never).

        A later call replaces an earlier one.
        """
        for timer in self._timers:
            timer.cancel()
        self._timers = []
        remaining = _LONGEST if expires_at is None else expires_at - dt.datetime.now(dt.UTC)
        if remaining >= _LONGEST:
            return
        loop, left = asyncio.get_running_loop(), remaining.total_seconds()
        warning = EXPIRY_WARNING.total_seconds()
        seconds = max(0, round(min(left, warning)))
        self._timers = [
            loop.call_later(max(0.0, left - warning), self.send_message, protocol.AuthExpiring(seconds=seconds)),
            loop.call_later(max(0.0, left), self.close, CloseCode.TOKEN_EXPIRED),
        ]

    def subscribe(self, request: SubscribeRequest) -> None:
        """Begin a subscription. Answers `subscribed` at once, or when older history was looked for. Raises Refused.

        Does nothing on a connection that is being closed.
        """
        if self.closing.done():
            return
        if request.id in self.subscriptions:
            raise Refused(ErrorCode.DUPLICATE_ID, f"the subscription {request.id} exists already")
        if len(self.subscriptions) >= protocol.MAX_SUBSCRIPTIONS:
            raise Refused(
                ErrorCode.TOO_MANY_SUBSCRIPTIONS,
                f"at most {protocol.MAX_SUBSCRIPTIONS} subscriptions a connection",
            )
        identity = self.views.identify(request.query, self.principal)
        for other in self.subscriptions.values():
            if self._will_have(other) == identity:
                raise Refused(ErrorCode.ALREADY_SUBSCRIBED, f"subscription {other.id} has this view already")
        view = self.views.attach(request.query, self.principal)
        resume_after = self._manager.recoverable(request, view.id, self.principal)
        subscription = Subscription(
            self, request.id, request.query, view, request.sort, request.limit, snapshot=request.snapshot
        )
        self.subscriptions[request.id] = subscription
        if resume_after is None and self._manager.within_reach(request, view.id):
            subscription.start(None, recovering=request)
            return
        self.answer(request, view.id, resume_after)
        subscription.start(resume_after)

    def answer(self, request: SubscribeRequest, view: str, resume_after: Position | None) -> None:
        """Answer a subscribe: with `since`, say whether the missed events follow or all is to be forgotten."""
        recovered = None if request.since is None else resume_after is not None
        self.send_message(protocol.Subscribed(id=request.id, view=view, recovered=recovered))
        if recovered is False and request.since is not None:
            stale = request.since[0]
            self.send_reset(protocol.Reset(view=stale, reason=protocol.ResetReason.HISTORY_LOST))

    async def recover(self, request: SubscribeRequest, view: str) -> Position | None:
        """The position to resume after, looked for in older history too. Raises DatabaseAway."""
        return await self._manager.recover(request, view, self.principal)

    def _will_have(self, subscription: Subscription) -> str:
        """The name of the view that a subscription has, or comes to when it is reset because rights have changed."""
        if subscription.state is State.RESETTING:
            return self.views.identify(subscription.query, self.principal)
        return subscription.view.id

    async def unsubscribe(self, id: str, reason: str) -> None:
        """End a subscription. Raises Refused for one that does not exist."""
        subscription = self.subscriptions.get(id)
        if subscription is None:
            raise Refused(ErrorCode.UNKNOWN_SUBSCRIPTION, f"there is no subscription {id}")
        self._remove(subscription, reason)
        await subscription.end()

    def _remove(self, subscription: Subscription, reason: str) -> None:
        # In one step, so that nothing of the subscription can follow `unsubscribed`, and the id is free for another.
        del self.subscriptions[subscription.id]
        subscription.stop()
        self.send_message(protocol.Unsubscribed(id=subscription.id, reason=reason))

    def unsubscribe_soon(self, subscription: Subscription, reason: str) -> None:
        """End a subscription from within its own task."""
        if self.subscriptions.get(subscription.id) is subscription:
            self._remove(subscription, reason)
            self._spawn(subscription.end())

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
        await self._send_when_settled(message_frame(protocol.Pong(id=id), position=self.positions.encode(position)))

    async def _send_when_settled(self, pong: Frame) -> None:
        # One may be reset while another is waited for, so until all are live at once.
        while unsettled := [s for s in self.subscriptions.values() if s.state not in (State.LIVE, State.ENDED)]:
            await unsettled[0].settled()
        self.send(pong)

    def recheck(self, resolve: Resolve) -> None:
        """The user's rights may have changed in a way that the feed could not tell: ask the database."""
        if self.principal.signed_in and not self.closing.done():
            self._spawn(self._rechecked(resolve))

    async def _rechecked(self, resolve: Resolve) -> None:
        credential = self.credential
        if credential is None:
            self.close(CloseCode.SERVICE_RESTART)
            return
        try:
            standing = await resolve(credential)
        except Exception as error:
            # Whatever it was, the rights must not stay what they were for good.
            if not isinstance(error, DatabaseAway):
                logger.exception("the rights of a connection cannot be read for now")
            await asyncio.sleep(RECHECK_SECONDS)
            self.recheck(resolve)
            return
        if credential != self.credential:  # the client has sent another one meanwhile, which was looked up then
            return
        if standing is None:
            self.close(CloseCode.FORBIDDEN)
            return
        self.move(standing.principal)
        if credential.is_key:
            self.watch_expiry(standing.ends_at)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def beat(self) -> None:
        """Send the heartbeat position, unless a view is on its way between two states."""
        if self.closing.done():
            return
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
