"""Whether a running server keeps its promise: the database, Redis, the clocks, the feed, and the way of a change to a
client of each worker."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from api.probes import Delays, ProbeFailed, Probes
from api.settings import Settings
from documents import (
    Database,
    DocumentsError,
    EntryCodec,
    Registry,
    Stored,
    Workers,
    checkpoint_age,
    collections_without_images,
    database_state,
    live_collections,
    utc_now,
)
from realtime import LogAway, LogState, LogTooShort, RedisLog, log_state

#: Tokens and links are valid for minutes, and delays are read in seconds.
MAX_CLOCK_DIFFERENCE: Final = dt.timedelta(seconds=2)
#: The feed moves each second, also when nobody writes.
MAX_AGE: Final = dt.timedelta(seconds=10)
#: What Redis needs for a full log besides the entries themselves.
LOG_OVERHEAD: Final = 1.25
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. Where it is not `ok`, `remedy` says what to do."""

    name: str
    ok: bool
    message: str
    remedy: str = ""
    details: dict[str, Any] = field(default_factory=dict)


Tell = Callable[[Check], object]


class Doctor:
    """Looks at one server from the machine that has its settings. `address` is where its clients connect.

    `tell` hears of each check as it is made. `patience` is how long an event may take. It writes nothing but a canary
    (see `documents.canaries`), which it takes away again, also when it is cancelled.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        registry: Registry,
        address: str,
        tell: Tell,
        patience: dt.timedelta = dt.timedelta(seconds=10),
    ) -> None:
        self._settings = settings
        self._database = database
        self._registry = registry
        self._address = address
        self._tell = tell
        self._patience = patience
        self._ahead = dt.timedelta()
        self._listeners: int | None = None

    async def examine(self) -> bool:
        """Make all checks; whether all was well. What cannot be asked is not well, and never an exception."""
        healthy = True
        for look in (self._at_database, self._at_images, self._at_redis, self._at_checkpoints, self._at_workers):
            try:
                found = await look()
            except DocumentsError as error:
                name = look.__name__.removeprefix("_at_")
                found = [Check(name, False, str(error), "Look at the database's own log")]
            for check in found:
                healthy = healthy and check.ok
                self._tell(dataclasses.replace(check, remedy="") if check.ok else check)
        return healthy

    async def _at_database(self) -> list[Check]:
        state = await database_state(self._database)
        self._ahead = state.ahead
        message = f"MongoDB {state.version}, {state.topology}"
        if self._settings.embedded:
            message = f"the embedded database, {state.topology}"
        details = {"version": state.version, "topology": state.topology, "writable": state.writable}
        remedy = "Wait for an election, or look at `rs.status()` in mongosh"
        if not state.writable:
            message += ", which has no primary here"
        return [Check("database", state.writable, message, remedy, details), self._clock("the database", state.ahead)]

    def _clock(self, whose: str, ahead: dt.timedelta) -> Check:
        milliseconds = round(ahead / dt.timedelta(milliseconds=1))
        way = "ahead of" if milliseconds >= 0 else "behind"
        return Check(
            "clock",
            abs(ahead) <= MAX_CLOCK_DIFFERENCE,
            f"the clock of {whose} is {abs(milliseconds)} ms {way} this machine's",
            "Let all machines follow a time server (NTP)",
            {"of": whose.removeprefix("the "), "ahead_ms": milliseconds},
        )

    async def _at_images(self) -> list[Check]:
        lacking = await collections_without_images(self._database, self._registry)
        if lacking:
            message = f"changes come without the document before them in: {', '.join(lacking)}"
            return [Check("images", False, message, "Run `python main.py schema apply`", {"lacking": lacking})]
        count = len(live_collections(self._registry))
        return [Check("images", True, f"kept before and after changes in all {count} live collections")]

    async def _at_redis(self) -> list[Check]:
        url = self._settings.redis_url
        if url is None:
            alone = self._settings.workers == 1
            message = "not used: each worker reads the change stream itself"
            return [Check("redis", alone, message, "Set HEADWATER_REDIS_URL when there are several workers")]
        log = RedisLog(
            url.get_secret_value(),
            self._database.id,
            EntryCodec(self._registry),
            max_entries=self._settings.history_events,
            max_bytes=self._settings.history_max_bytes,
        )
        try:
            state = await log_state(log)
        except (LogAway, LogTooShort) as error:
            remedy = (
                "Start it, mend HEADWATER_REDIS_URL or what its user may do; until then workers go on by themselves"
            )
            return [Check("redis", False, f"Redis cannot be used: {error}", remedy)]
        finally:
            await log.close()
        self._listeners = state.listeners
        return [self._memory(state), self._clock("Redis", state.ahead), self._relay(state)]

    def _memory(self, state: LogState) -> Check:
        used, most = round(state.used_bytes / _MIB), round(state.max_bytes / _MIB)
        message = (
            f"Redis {state.version}, {used} MiB used of {f'{most} MiB' if most else 'what there is'}, {state.policy}"
        )
        if not state.append_only:
            message += "; without an append-only file, so after a restart of it the log begins anew"
        needed = int(self._settings.history_max_bytes * LOG_OVERHEAD)
        details = {
            "version": state.version,
            "used_bytes": state.used_bytes,
            "max_bytes": state.max_bytes,
            "policy": state.policy,
            "append_only": state.append_only,
        }
        if state.max_bytes and state.policy != "noeviction":
            message = f"Redis may throw the log away when its memory is full ({state.policy})"
            return Check("redis", False, message, "Set maxmemory-policy to noeviction", details)
        if state.max_bytes and state.max_bytes < needed:
            message = f"maxmemory is {most} MiB, and a full log takes {round(needed / _MIB)} MiB"
            remedy = "Raise maxmemory, or lower HEADWATER_HISTORY_MAX_BYTES"
            return Check("redis", False, message, remedy, details)
        return Check("redis", True, message, details=details)

    def _relay(self, state: LogState) -> Check:
        age = None if state.newest is None else utc_now() + self._ahead - state.newest
        details = {
            "leased": state.relayed,
            "log_age_seconds": None if age is None else round(age.total_seconds(), 3),
            "listeners": state.listeners,
        }
        remedy = "Look for `headwater.relay` in the workers' logs"
        if not state.relayed:
            return Check("relay", False, "no worker relays changes", remedy, details)
        if age is None or age > MAX_AGE:
            ended = "there is no log" if age is None else f"the log ended {age.total_seconds():.0f} s ago"
            return Check("relay", False, f"a worker holds the lease, and {ended}", remedy, details)
        message = f"one worker relays; the log ended {max(0.0, age.total_seconds()):.1f} s ago"
        return Check("relay", True, f"{message}; {state.listeners} listening", details=details)

    async def _at_checkpoints(self) -> list[Check]:
        age = await checkpoint_age(self._database, self._ahead)
        remedy = "Start the server, or look for `headwater.feed` in its log"
        if age is None:
            return [Check("checkpoints", False, "no worker has ever noted how far it has come", remedy)]
        message = f"the feed has noted how far it has come {max(0.0, age.total_seconds()):.1f} s ago"
        details = {"age_seconds": round(age.total_seconds(), 3)}
        return [Check("checkpoints", age <= MAX_AGE, message, remedy, details)]

    async def _at_workers(self) -> list[Check]:
        present, silent = await Workers(self._database).roll()
        details: dict[str, Any] = {"present": len(present), "address": self._address}
        if not present:
            remedy = "Start the server with these settings: `make run`"
            return [Check("workers", False, "no worker serves this database", remedy, details)]
        probes = Probes(self._settings, self._database, self._registry, self._address, self._patience)
        try:
            # One that hangs soon counts as gone. It still holds its clients' connections.
            delays = await probes.measure([*present, *(worker for worker in silent if not _ended(worker))])
        except ProbeFailed as error:
            return [Check("workers", False, str(error), error.remedy, details)]
        checks = [self._worker(delay) for delay in delays]
        if self._listeners is not None and self._listeners < len(present):
            message = f"{self._listeners} of {len(present)} workers listen to the relay; the others read for themselves"
            checks.append(Check("relay", False, message, "Look for `headwater.feed` in the workers' logs"))
        return checks

    def _worker(self, delays: Delays) -> Check:
        details = dataclasses.asdict(delays)
        if not delays.reached:
            message = f"{delays.worker}: it does not answer, or accepts no connections to {self._address}"
            remedy = "See whether it hangs; where it has an address of its own, name that: --url"
            return Check("worker", False, message, remedy, details)
        late = [name for name, value in (("direct", delays.direct_ms), ("API", delays.api_ms)) if value is None]
        if late:
            unheard = " and the ".join(late)
            message = f"{delays.worker}: no event of the {unheard} write within {self._patience.seconds} s"
            return Check("worker", False, message, "Look for `headwater.feed` in its log", details)
        message = f"a direct write after {delays.direct_ms:.0f} ms, one by the API after {delays.api_ms:.0f} ms"
        return Check("worker", True, f"{delays.worker}: {message} (feed: {delays.feed})", details=details)


def _ended(worker: Stored) -> bool:
    """Whether a worker was a process of this machine that is no more: what one leaves that was killed."""
    pid = worker.get("pid")
    if worker.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # another user's, so it runs
    return False
