"""What admins ask of all workers at once: who serves, who is connected, and that somebody be disconnected."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from documents import DocumentsError, Order, Workers, rfc3339
from realtime.connections import Connection
from realtime.feed_status import FeedStatus
from realtime.manager import ConnectionManager
from realtime.protocol import CloseCode, ResetReason

logger = logging.getLogger("headwater.workers")

#: How often a worker looks for orders; every fourth time it says that it is there.
LOOK_EVERY: Final = dt.timedelta(milliseconds=500)
ANNOUNCE_EVERY: Final = 4
#: Whoever has not answered after this is left out.
PATIENCE: Final = dt.timedelta(seconds=3)
_ASK_AGAIN: Final = dt.timedelta(milliseconds=100)
_LEAVE_WITHIN: Final = dt.timedelta(seconds=1)

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Census:
    """Connections of all workers. `total` counts more than `items` when they were limited; `silent` are workers that
    did not answer in time."""

    items: list[Report]
    total: int
    silent: list[str]


@dataclass(frozen=True, slots=True)
class Kicked:
    """How many connections were closed. `silent` are workers that did not answer in time; they may still do it."""

    closed: int
    silent: list[str]


class RollCall:
    """This worker's part in it. One task, `run`, which the lifespan owns.

    `workers` is None where there can be no other worker. The methods raise DatabaseAway.
    """

    def __init__(self, workers: Workers | None, status: FeedStatus, manager: ConnectionManager) -> None:
        self.id = secrets.token_hex(6)
        self._workers = workers
        self._status = status
        self._manager = manager
        self._started_at = dt.datetime.now(dt.UTC)
        #: Orders that this worker has answered. They are taken away within seconds.
        self._done: dict[str, None] = {}

    async def run(self) -> None:
        """Say that this worker serves, and answer orders, until cancelled."""
        if self._workers is None:
            return
        turn, away = 0, False
        try:
            while True:
                try:
                    if turn % ANNOUNCE_EVERY == 0:
                        await self._workers.announce(self.id, self.report())
                    await self._obey(self._workers)
                    away = False
                except DocumentsError as error:
                    if not away:
                        logger.warning("this worker cannot hear of orders for now: %s", error)
                    away = True
                except Exception:
                    # A worker that answers no orders is one that no admin can see, until it is restarted.
                    if not away:
                        logger.exception("this worker cannot hear of orders for now")
                    away = True
                turn += 1
                await asyncio.sleep(LOOK_EVERY.total_seconds())
        finally:
            with contextlib.suppress(DocumentsError, TimeoutError):
                async with asyncio.timeout(_LEAVE_WITHIN.total_seconds()):
                    await self._workers.leave(self.id)

    def report(self) -> Report:
        """How this worker is."""
        manager, status = self._manager, self._status
        slow = manager.resets[ResetReason.LAGGING] + manager.closed[CloseCode.SLOW_CONSUMER]
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at": rfc3339(self._started_at),
            "draining": manager.draining,
            "feed": status.mode,
            "relay": status.leading,
            "relay_lag_seconds": round(status.lag_seconds, 3),
            "connections": len(manager),
            "subscriptions": sum(len(connection.subscriptions) for connection in manager),
            "views": len(manager.views),
            "deliveries": manager.deliveries,
            "slow_consumers": slow,
            "outbox_bytes": sum(connection.outbox.bytes for connection in manager),
        }

    async def workers(self) -> list[Report]:
        """How all workers are: this one now, the others some seconds ago. Ordered by machine and start."""
        present = [] if self._workers is None else await self._workers.present()
        fields = self.report().keys()
        # One of another version may have said less.
        others = [
            {"id": other["_id"], **{name: other.get(name) for name in fields}}
            for other in present
            if other["_id"] != self.id
        ]
        everyone = [{"id": self.id, **self.report()}, *others]
        return sorted(everyone, key=lambda worker: (str(worker["host"]), str(worker["started_at"]), worker["id"]))

    async def connections(self, user_id: object, limit: int) -> Census:
        """Connections, of one user or (None) of all; those with the fullest outboxes first."""
        replies, silent = await self._ask("connections", {"user_id": user_id, "limit": limit})
        items = [item for reply in replies for item in reply["items"]]
        items.sort(key=lambda item: (-item["outbox_bytes"], item["opened_at"], item["id"]))
        return Census(items[:limit], sum(reply["total"] for reply in replies), silent)

    async def kick(self, user_id: object) -> Kicked:
        """Close all connections of a user, for good. New ones are not refused: deactivate the user for that."""
        replies, silent = await self._ask("kick", {"user_id": user_id})
        return Kicked(sum(reply["closed"] for reply in replies), silent)

    async def _ask(self, name: str, terms: Mapping[str, Any]) -> tuple[list[Report], list[str]]:
        """The answers of all workers, and which of them have not answered."""
        own = self._carry_out(name, terms)
        workers = self._workers
        if workers is None:
            return [own], []
        waiting = sorted(other["_id"] for other in await workers.present() if other["_id"] != self.id)
        if not waiting:
            return [own], []
        order = await workers.give(name, dict(terms))
        self._done[order.id] = None
        replies: dict[str, Report] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE.total_seconds()):
                while len(replies) < len(waiting):
                    await asyncio.sleep(_ASK_AGAIN.total_seconds())
                    replies = await workers.replies(order, waiting)
        silent = [worker for worker in waiting if worker not in replies]
        if not silent:
            # Otherwise it stays for a minute: who was only slow is to do it all the same.
            await workers.withdraw(order)
        return [own, *replies.values()], silent

    async def _obey(self, workers: Workers) -> None:
        orders = await workers.orders(self._done)
        for order in orders:
            self._done[order.id] = None
            await workers.reply(order, self.id, self._answer(order))
        while len(self._done) > 100:
            del self._done[next(iter(self._done))]

    def _answer(self, order: Order) -> Report:
        try:
            return self._carry_out(order.name, order.terms)
        except Exception:
            # Somebody else may write there, and a worker of another version asks differently.
            logger.exception("an order is not understood: %s", order.name)
            return {"items": [], "total": 0, "closed": 0}

    def _carry_out(self, name: str, terms: Mapping[str, Any]) -> Report:
        user_id = terms["user_id"]
        found = list(self._manager) if user_id is None else self._manager.of_user(user_id)
        if name == "kick":
            for connection in found if user_id is not None else ():
                connection.close(CloseCode.FORBIDDEN)
            return {"closed": len(found)}
        if name == "connections":
            found.sort(key=lambda connection: (-connection.outbox.bytes, connection.opened_at))
            return {"total": len(found), "items": [self._describe(each) for each in found[: int(terms["limit"])]]}
        raise ValueError(name)

    def _describe(self, connection: Connection) -> Report:
        principal = connection.principal
        user = {"id": str(principal.user_id), "username": principal.username} if principal.signed_in else None
        return {
            "id": connection.id,
            "worker": self.id,
            "transport": connection.origin.transport.value,
            "address": connection.origin.address,
            "user": user,
            "opened_at": rfc3339(connection.opened_at),
            "subscriptions": len(connection.subscriptions),
            "outbox_bytes": connection.outbox.bytes,
            "sent_bytes": connection.outbox.sent_bytes,
        }
