"""This worker's figures: what its parts keep as plain numbers, read once a second and told to the metrics.

So nothing that is done for each event, frame or read waits for a metric.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from pathlib import Path
from typing import Final

from api.counters import Counters
from api.metrics import Grown, Metrics
from api.passwords import Passwords
from documents import BrokenDocuments, Database
from realtime import FEED_MODES, ConnectionManager, FeedStatus, ReadCache, Transport, protocol

INTERVAL_SECONDS: Final = 1.0
_PAGE_BYTES: Final = resource.getpagesize()
_PROC: Final = Path("/proc/self")


class Figures:
    """One task, `run`, which the lifespan owns."""

    def __init__(
        self,
        metrics: Metrics,
        database: Database,
        status: FeedStatus,
        manager: ConnectionManager,
        read_cache: ReadCache,
        passwords: Passwords,
        counters: Counters,
        broken: BrokenDocuments,
    ) -> None:
        self.metrics = metrics
        self._database = database
        self._status = status
        self._manager = manager
        self._read_cache = read_cache
        self._passwords = passwords
        self._counters = counters
        self._broken = broken
        self._grown = Grown()
        metrics.workers.set(1)

    async def run(self) -> None:
        """Read until cancelled."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                due = clock() + INTERVAL_SECONDS
                await asyncio.sleep(INTERVAL_SECONDS)
                self.metrics.loop_lag_seconds.observe(max(0.0, clock() - due))
                self.read()
        finally:
            # What was counted since counts, too, when other workers tell of this one.
            self.read()

    def read(self) -> None:
        """Tell the metrics how things stand now."""
        self._connections()
        self._feed()
        self._process()
        metrics, grown, cache = self.metrics, self._grown, self._read_cache
        grown.tell(metrics.cache_hits, cache.hits)
        grown.tell(metrics.cache_misses, cache.misses)
        metrics.cache_bytes.set(cache.bytes)
        metrics.hashes_pending.set(self._passwords.pending)
        grown.tell_each(metrics.refusals, self._counters.refused)
        grown.tell_each(metrics.broken_documents, self._broken.counts)
        pools = {"mongodb": self._database.pool, "redis_counters": self._counters.pool}
        if (relaying := self._status.relaying) is not None:
            pools["redis_log"] = relaying.log.pool
        for name, use in pools.items():
            if use is not None:
                metrics.pool_connections.labels(name, "in_use").set(use.in_use)
                metrics.pool_connections.labels(name, "idle").set(use.idle)

    def _connections(self) -> None:
        metrics, grown, manager = self.metrics, self._grown, self._manager
        count = dict.fromkeys(Transport, 0)
        subscriptions = waiting = largest = 0
        for connection in manager:
            count[connection.origin.transport] += 1
            subscriptions += len(connection.subscriptions)
            waiting += connection.outbox.bytes
            largest = max(largest, connection.outbox.bytes)
        for transport, open_now in count.items():
            metrics.connections.labels(transport.value).set(open_now)
        metrics.subscriptions.set(subscriptions)
        metrics.outbox_bytes.set(waiting)
        metrics.outbox_largest_bytes.set(largest)
        metrics.views.set(len(manager.views))
        grown.tell(metrics.deliveries, manager.deliveries)
        grown.tell_each(metrics.opened, {transport.value: n for transport, n in manager.opened.items()})
        grown.tell_each(metrics.closed, {code.name.lower(): n for code, n in manager.closed.items()})
        grown.tell_each(metrics.resets, {reason.value: n for reason, n in manager.resets.items()})
        grown.tell(metrics.slow_consumers, manager.resets[protocol.ResetReason.LAGGING], "reset")
        grown.tell(metrics.slow_consumers, manager.closed[protocol.CloseCode.SLOW_CONSUMER], "closed")
        grown.tell_histogram(metrics.commit_to_client, manager.delays.counts, manager.delays.sum_seconds)

    def _feed(self) -> None:
        metrics, grown, status = self.metrics, self._grown, self._status
        metrics.relay_lag_seconds.set(status.lag_seconds)
        for mode in FEED_MODES:
            metrics.feed_mode.labels(mode).set(mode == status.mode)
        metrics.feed_connected.set(status.feed.connected)
        metrics.relays.set(status.leading)
        grown.tell(metrics.feed_entries, status.feed.entries)
        if (relaying := status.relaying) is not None:
            grown.tell(metrics.feed_gaps, relaying.source.gaps)
            grown.tell(metrics.feed_switches, relaying.source.switches)
            grown.tell(metrics.relay_terms, relaying.relay.terms)

    def _process(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._grown.tell(self.metrics.cpu_seconds, used.ru_utime + used.ru_stime)
        self.metrics.tasks.set(len(asyncio.all_tasks()))
        # Linux alone has them; elsewhere they stay at zero.
        with contextlib.suppress(FileNotFoundError):
            self.metrics.memory_bytes.set(int((_PROC / "statm").read_text().split()[1]) * _PAGE_BYTES)
            self.metrics.open_files.set(len(os.listdir(_PROC / "fd")))
