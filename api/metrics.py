"""What Prometheus may ask for: every metric, with its meaning. docs/operations.md lists them, by test.

Several workers share one set of figures through files (`prometheus_client`'s multiprocess mode): whichever worker is
asked answers for all. The library chooses that mode when it is imported, by the variable that `api.metric_files` sets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from api.metric_files import MetricFiles
from realtime import DELAY_BOUNDS

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LOOP_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

Over = Literal["livesum", "livemax", "livemin"]


class Metrics:
    """The metrics of this process. Built by `main`, once a process; importing this module makes none."""

    def __init__(self) -> None:
        # A second series for each counter, which says when it began, and which nobody asked for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        directory = os.environ.get(MetricFiles.VARIABLE)
        self.files = None if directory is None else MetricFiles(directory)
        if self.files is None:
            self._define()
        else:
            # Nobody may read a file that is just being made.
            with self.files.locked():
                self._define()

    def _define(self) -> None:
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.requests = counter("http_requests", "Answers, by route template and status.", "method", "route", "status")
        self.request_seconds = histogram(
            "http_request_duration_seconds",
            "Time to the end of an answer. Not of event streams, which last as long as their client stays.",
            _SECONDS,
            "method",
            "route",
        )
        self.requests_in_progress = gauge("http_requests_in_progress", "Requests that are being answered.")
        self.refusals = counter(
            "rate_limit_refusals",
            "Requests refused with 429: `requests` by HEADWATER_RATE_LIMIT, `sign_in` by HEADWATER_LOGIN_RATE_LIMIT.",
            "limit",
        )
        self.broken_documents = counter(
            "broken_documents", "Documents met that break the rules of their class, each revision once.", "resource"
        )
        self.connections = gauge("connections", "Open live connections.", "transport")
        self.opened = counter("connections_opened", "Live connections opened.", "transport")
        self.closed = counter("connections_closed", "Live connections closed by the server, by close code.", "code")
        self.subscriptions = gauge("subscriptions", "Subscriptions of open connections.")
        self.views = gauge("views", "Views that somebody subscribes to; each worker has its own.")
        self.deliveries = counter("deliveries", "Events put before subscribers.")
        self.commit_to_client = histogram(
            "commit_to_client_seconds",
            "From the commit of a change to the handover of its event to a client's socket, by two machines' clocks.",
            DELAY_BOUNDS,
        )
        self.outbox_bytes = gauge("outbox_bytes", "What waits in the outboxes of all connections.")
        self.outbox_largest_bytes = gauge("outbox_largest_bytes", "What waits in the fullest outbox.", over="livemax")
        self.resets = counter("resets", "Views that subscribers had to forget, by reason.", "reason")
        self.slow_consumers = counter(
            "slow_consumers", "Clients that read too slowly: a view was `reset`, or the connection `closed`.", "outcome"
        )
        self.relay_lag_seconds = gauge(
            "relay_lag_seconds", "How far the worker that is furthest behind is behind the database.", over="livemax"
        )
        self.feed_mode = gauge("feed_mode", "Workers by where they get changes: relayed, direct or local.", "mode")
        self.feed_connected = gauge(
            "feed_connected", "1 while changes come in at every worker, else 0.", over="livemin"
        )
        self.feed_entries = counter("feed_entries", "Changes, resets and heartbeats that the feeds brought.")
        self.feed_gaps = counter("feed_gaps", "Messages of the relay that were missed, and read from its log.")
        self.feed_switches = counter("feed_switches", "Changes of a worker from the relayed log to the change stream.")
        self.relays = gauge("relays", "Workers that are the relay: 1, or 0 without Redis.")
        self.relay_terms = counter("relay_terms", "How often a worker became the relay.")
        self.cache_hits = counter("read_cache_hits", "Reads that the read cache answered.")
        self.cache_misses = counter("read_cache_misses", "Reads that it passed on to the database.")
        self.cache_bytes = gauge("read_cache_bytes", "What the read caches keep.")
        self.hashes_pending = gauge("password_hashes_pending", "Passwords that are being hashed or wait for it.")
        self.loop_lag_seconds = histogram(
            "event_loop_lag_seconds", "How late a task of the event loop runs, tried each second.", _LOOP_SECONDS
        )
        self.pool_connections = gauge(
            "pool_connections", "Connections to the database and to Redis, in use or idle.", "pool", "state"
        )
        self.workers = gauge("workers", "Worker processes.")
        self.memory_bytes = gauge("process_resident_memory_bytes", "Resident memory of the workers.")
        self.open_files = gauge("process_open_files", "Open file descriptors of the workers.")
        self.tasks = gauge("tasks", "Tasks of the event loops.")
        self.cpu_seconds = counter("process_cpu_seconds", "Processor time of the workers.")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"headwater_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str, over: Over = "livesum") -> Gauge:
        """`over`: what the workers' values make together."""
        return Gauge(f"headwater_{name}", meaning, labels, registry=self.registry, multiprocess_mode=over)

    def _histogram(self, name: str, meaning: str, bounds: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"headwater_{name}", meaning, labels, registry=self.registry, buckets=bounds)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The figures in the format that `accept` asks for, and its media type. Reads files: not for the event loop."""
        encode, media_type = choose_encoder(accept)
        if self.files is None:
            return encode(self.registry), media_type
        with self.files.merged() as registry:
            return encode(registry), media_type


class Grown:
    """Counters that somebody else keeps as plain numbers: adds to metrics what has come to them since the last time."""

    def __init__(self) -> None:
        self._told: dict[object, float] = {}

    def tell(self, metric: Counter, total: float, *labels: str) -> None:
        """`total` is the other's count now."""
        key = (metric, labels)
        if (new := total - self._told.get(key, 0)) > 0:
            (metric.labels(*labels) if labels else metric).inc(new)
            self._told[key] = total

    def tell_each(self, metric: Counter, totals: Mapping[str, float]) -> None:
        """The same by the value of the metric's label."""
        for label, total in totals.items():
            self.tell(metric, total, label)

    def tell_histogram(self, metric: Histogram, counts: Sequence[int], total: float) -> None:
        """The same for counts by class and the sum of what was counted."""
        # Observing each would cost more than the deliveries that are observed, and the library has no other way in.
        buckets, whole = metric._buckets, metric._sum
        for place, count in enumerate(counts):
            if new := count - self._told.get((metric, place), 0):
                buckets[place].inc(new)
                self._told[metric, place] = count
        if new_sum := total - self._told.get((metric, "sum"), 0.0):
            whole.inc(new_sum)
            self._told[metric, "sum"] = total
