"""One subscription of one connection: snapshot, catching up, live, reset, and again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import logging
from typing import TYPE_CHECKING

from documents import (
    Change,
    DatabaseAway,
    DocumentsError,
    Entry,
    InvalidInput,
    Position,
    Principal,
    QueryTooSlow,
    Reset,
    Sort,
)
from documents import ResetReason as FeedReset
from realtime import protocol
from realtime.frames import Frame, message_frame, snapshot_frame
from realtime.history import concerns
from realtime.views import View, ViewQuery

if TYPE_CHECKING:
    from realtime.connections import Connection, SubscribeRequest

logger = logging.getLogger("headwater.subscriptions")

#: Entries of history that are looked at before other tasks get a turn.
CATCH_UP_ENTRIES = 500
RETRY_SECONDS = 1.0

_RESET_REASONS = {
    FeedReset.DROPPED: protocol.ResetReason.SCHEMA_CHANGED,
    FeedReset.RENAMED: protocol.ResetReason.SCHEMA_CHANGED,
}


def reset_reason(entry: Entry) -> protocol.ResetReason:
    """What a reset of the feed is to a client."""
    known = _RESET_REASONS.get(entry.reason) if isinstance(entry, Reset) else None
    return known or protocol.ResetReason.HISTORY_LOST


class State(enum.Enum):
    """Where a subscription is.

    READING: nothing has been promised yet. CATCHING_UP: `ready` was sent, later changes come from history.
    LIVE: the fan-out sends. RESETTING: the view is lost; a reset is due or sent. ENDED: for good.
    """

    READING = "reading"
    CATCHING_UP = "catching up"
    LIVE = "live"
    RESETTING = "resetting"
    ENDED = "ended"


class Subscription:
    """A client's interest in a view, under the client's own id.

    Its task owns the way to LIVE: it is the only one that sends snapshot pages, `ready` and the events that were
    missed meanwhile. The step from CATCHING_UP to LIVE has no await between reading the end of history and the
    change of state, and the fan-out runs in the same event loop: so no event is skipped and none is sent twice.
    """

    def __init__(
        self,
        connection: Connection,
        id: str,
        query: ViewQuery,
        view: View,
        sort: Sort,
        limit: int,
        *,
        snapshot: bool,
    ) -> None:
        self.connection = connection
        self.id = id
        self.query = query
        self.view = view
        self.state = State.READING
        self._sort = sort
        self._limit = limit
        self._snapshot = snapshot
        self._resume_after: Position | None = None
        #: The request that is not answered yet, because older history is looked for.
        self._recovering: SubscribeRequest | None = None
        self._reset = asyncio.Event()
        self._settled = asyncio.Event()
        self._reason: protocol.ResetReason | None = None
        self._task: asyncio.Task[None] | None = None
        self._establishing: asyncio.Task[None] | None = None
        view.subscriptions.add(self)

    def start(self, resume_after: Position | None, *, recovering: SubscribeRequest | None = None) -> None:
        """Begin. With `resume_after` the events above it are sent from history, and no snapshot.

        With `recovering` older history is looked for first, and the request answered then.
        """
        self._resume_after = resume_after
        self._recovering = recovering
        self._task = asyncio.create_task(self._run(), name=f"subscription {self.id}")
        self._task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a subscription to %s failed", self.view.resource.name, exc_info=error)
            self.connection.unsubscribe_soon(self, reason="internal_error")

    @property
    def ended(self) -> bool:
        """Whether the subscription is over."""
        return self.state is State.ENDED

    def stop(self) -> None:
        """Leave the view and put nothing more into the outbox, as of now.

        Never waits. Safe to call twice, and from the subscription's own tasks.
        """
        if self.ended:
            return
        self._leave_view()
        self.state = State.ENDED
        self._settled.set()
        for task in (self._establishing, self._task):
            if task is not None:
                task.cancel()

    async def end(self) -> None:
        """Stop, and wait until the tasks have ended. Safe to call twice."""
        self.stop()
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.gather(self._task, return_exceptions=True)

    def _leave_view(self) -> None:
        self.view.subscriptions.discard(self)
        self.connection.views.release(self.view)

    def deliver(self, frame: Frame) -> None:
        """Called by the fan-out with each event of the view, in order. Never waits."""
        if self.state is State.LIVE and not self.connection.outbox.put(frame):
            self.reset(protocol.ResetReason.LAGGING)

    def reset(self, reason: protocol.ResetReason) -> None:
        """The view can no longer be continued. The task tells the client and starts again. Never waits."""
        if self.ended:
            return
        # Access that was lost outranks what was noticed before: what is still waiting may no longer be seen.
        if self._reason is None or reason is protocol.ResetReason.ACCESS_CHANGED:
            self._reason = reason
        self.state = State.RESETTING
        self._settled.clear()
        # Not even what was to be recovered: the client is about to forget all that it has.
        self._resume_after = None
        self.connection.drop_view(self.view.id)
        self._reset.set()
        if self._establishing is not None:
            # Delivered before any more of it runs: not one frame of the old view goes out after this.
            self._establishing.cancel()

    def move(self, principal: Principal) -> None:
        """The user's rights have changed: the subscription now is to the view of the same query with the new ones.

        Does nothing where the change makes no difference to what the view contains.
        """
        index = self.connection.views
        if self.ended or index.identify(self.query, principal) == self.view.id:
            return
        self.reset(protocol.ResetReason.ACCESS_CHANGED)

    async def settled(self) -> None:
        """Wait until the subscription is live (or has ended)."""
        while self.state not in (State.LIVE, State.ENDED):
            await self._settled.wait()

    async def _run(self) -> None:
        while not self.ended:
            establishing = asyncio.create_task(self._establish(), name=f"establish {self.id}")
            self._establishing = establishing
            resetting = asyncio.create_task(self._reset.wait())
            try:
                await asyncio.wait({establishing, resetting}, return_when=asyncio.FIRST_COMPLETED)
                if not self._reset.is_set():
                    if not establishing.cancelled() and establishing.exception() is None:
                        await resetting  # live, which lasts until the next reset
                    else:
                        await self._failed(None if establishing.cancelled() else establishing.exception())
            finally:
                # A cancellation here (unsubscribe, the socket closed) loses nothing: the view is being left.
                establishing.cancel()
                resetting.cancel()
                await asyncio.gather(establishing, resetting, return_exceptions=True)
            if self._reset.is_set():
                await self._announce_reset()

    async def _failed(self, error: BaseException | None) -> None:
        """The way to live failed: the database is away, or the query cannot be run. Never end in silence.

        Returns when it is time to try again, or at the next reset. `error` is None when the read was given up.
        """
        if isinstance(error, QueryTooSlow):
            # It would be as slow the next time.
            logger.warning("a snapshot of %s was too slow; the subscription ends", self.view.resource.name)
            self.connection.unsubscribe_soon(self, reason="query_too_slow")
        elif error is None or isinstance(error, DatabaseAway):
            logger.warning("a snapshot of %s failed, trying again: %s", self.view.resource.name, error)
        else:
            logger.error("a snapshot of %s failed, trying again", self.view.resource.name, exc_info=error)
            if not isinstance(error, DocumentsError) or isinstance(error, InvalidInput):
                self.connection.unsubscribe_soon(self, reason="internal_error")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS):
                await self._reset.wait()

    async def _establish(self) -> None:
        self.state = State.READING
        feed = self.connection.feed
        if self._recovering is not None:
            resume_after = await self.connection.recover(self._recovering, self.view.id)
            # From here to the assignment there is no await: it is answered once.
            self.connection.answer(self._recovering, self.view.id, resume_after)
            self._recovering, self._resume_after = None, resume_after
            if self.ended:  # the client did not even take the answer
                return
        if self._resume_after is not None:
            # Recovered: the missed events come first, then `ready`.
            after, self._resume_after = self._resume_after, None
            await self._catch_up(after, ready_first=False, complete=True)
            return
        if not self._snapshot:
            await self._catch_up(feed.head, ready_first=True, complete=True)
            return
        snapshot = await self.connection.snapshots.read(self.view, self._sort, self._limit)
        last = len(snapshot.pages) - 1
        for number, page in enumerate(snapshot.pages):
            # The next page only when this one is on its way: a slow reader costs one page and not the whole result.
            await self.connection.room(self.connection.outbox.max_bytes // 4)
            await self._put(snapshot_frame(id=self.id, view=self.view.id, items=page, more=number < last))
        await self._catch_up(snapshot.position, ready_first=True, complete=snapshot.complete)

    async def _catch_up(self, position: Position, *, ready_first: bool, complete: bool) -> None:
        """Send what history has above `position`, and become live where it ends."""
        feed = self.connection.feed
        if ready_first:
            self._send_ready(position, complete)
        if self.ended:  # the client did not even take `ready`
            return
        self.state = State.CATCHING_UP
        while True:
            entries = feed.history.after(position, CATCH_UP_ENTRIES)
            if entries is None:
                self.reset(protocol.ResetReason.HISTORY_LOST)
                return
            for entry in entries:
                position = entry.position
                if concerns(entry, self.view.resource.name):
                    self.reset(reset_reason(entry))
                    return
                if isinstance(entry, Change) and entry.collection == self.view.resource.name:
                    frame = self.view.event(entry)
                    if frame is not None:
                        # Its delay would be that of the subscriber, who was not there.
                        await self._put(dataclasses.replace(frame, committed_at=None))
            if len(entries) < CATCH_UP_ENTRIES and position >= feed.head:
                break
            await asyncio.sleep(0)
        # From here to the end there is no await: the fan-out takes over exactly where history ended.
        if not ready_first:
            self._send_ready(max(position, feed.head), complete)
        if not self.ended:
            self.state = State.LIVE
            self._settled.set()

    async def _put(self, frame: Frame) -> None:
        """Put a frame into the outbox as soon as there is room for it."""
        outbox = self.connection.outbox
        while not outbox.put(frame):
            await self.connection.room(max(0, outbox.max_bytes - frame.size))

    def _send_ready(self, position: Position, complete: bool) -> None:
        text = self.connection.positions.encode(position)
        ready = protocol.Ready(id=self.id, view=self.view.id, position=text, complete=complete)
        self.connection.send(message_frame(ready, view=self.view.id, position=text))

    async def _announce_reset(self) -> None:
        """Tell the client, once the socket takes frames again, and get ready to begin anew."""
        if self._reason is protocol.ResetReason.LAGGING:
            await self.connection.drained()
        # No await from here on, or a reset that comes meanwhile would be forgotten.
        reason = self._reason or protocol.ResetReason.HISTORY_LOST
        reset = protocol.Reset(view=self.view.id, reason=reason)
        self._reset.clear()
        self._reason = None
        if self._recovering is not None:
            self.connection.send_message(protocol.Subscribed(id=self.id, view=self.view.id, recovered=False))
            self._recovering = None
        self.connection.send_reset(reset)
        if self.ended:  # the client did not even take the reset
            return
        if reason is protocol.ResetReason.ACCESS_CHANGED:
            principal = self.connection.principal
            if not self.connection.views.permits(self.query, self._sort, principal):
                # To go on would tell by its results what fields hold that the user may no longer see.
                self.connection.unsubscribe_soon(self, reason="access_changed")
                return
            self._leave_view()
            self.view = self.connection.views.attach(self.query, principal)
            self.view.subscriptions.add(self)
        self.state = State.READING
