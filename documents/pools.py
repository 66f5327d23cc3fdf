"""The driver's connections, counted as the driver tells of them (the CMAP specification's events)."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pymongo.monitoring import (
    ConnectionCheckedInEvent,
    ConnectionCheckedOutEvent,
    ConnectionCheckOutFailedEvent,
    ConnectionCheckOutStartedEvent,
    ConnectionClosedEvent,
    ConnectionCreatedEvent,
    ConnectionPoolListener,
    ConnectionReadyEvent,
    PoolClearedEvent,
    PoolClosedEvent,
    PoolCreatedEvent,
    PoolReadyEvent,
)


@dataclass(frozen=True, slots=True)
class PoolUse:
    """Connections of a pool that somebody uses, and that wait for somebody."""

    in_use: int = 0
    idle: int = 0


class PoolCounts(ConnectionPoolListener):
    """Counts over all servers of the cluster. The driver calls it from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._in_use = 0

    @property
    def use(self) -> PoolUse:
        """How it is now."""
        with self._lock:
            return PoolUse(self._in_use, max(0, self._open - self._in_use))

    def connection_created(self, _event: ConnectionCreatedEvent) -> None:
        with self._lock:
            self._open += 1

    def connection_closed(self, _event: ConnectionClosedEvent) -> None:
        with self._lock:
            self._open -= 1

    def connection_checked_out(self, _event: ConnectionCheckedOutEvent) -> None:
        with self._lock:
            self._in_use += 1

    def connection_checked_in(self, _event: ConnectionCheckedInEvent) -> None:
        with self._lock:
            self._in_use -= 1

    def pool_created(self, _event: PoolCreatedEvent) -> None: ...
    def pool_ready(self, _event: PoolReadyEvent) -> None: ...
    def pool_cleared(self, _event: PoolClearedEvent) -> None: ...
    def pool_closed(self, _event: PoolClosedEvent) -> None: ...
    def connection_ready(self, _event: ConnectionReadyEvent) -> None: ...
    def connection_check_out_started(self, _event: ConnectionCheckOutStartedEvent) -> None: ...
    def connection_check_out_failed(self, _event: ConnectionCheckOutFailedEvent) -> None: ...
