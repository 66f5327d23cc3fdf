"""What an operator has to know of Redis: whether it keeps the log, whether somebody writes it, and who listens."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from realtime.log_redis import RedisLog, away


@dataclass(frozen=True, slots=True)
class LogState:
    """`max_bytes` is 0 where Redis takes what there is; `relayed`, whether a worker holds the lease;
    `append_only`, whether a restart would find all again.

    `newest` is the time of the log's last entry, None where there is no log; `ahead`, how far Redis' clock is ahead of
    ours.
    """

    version: str
    used_bytes: int
    max_bytes: int
    policy: str
    append_only: bool
    relayed: bool
    newest: dt.datetime | None
    listeners: int
    ahead: dt.timedelta


async def log_state(log: RedisLog) -> LogState:
    """Ask Redis. Raises LogAway and LogTooShort."""
    with away():
        asked = dt.datetime.now(dt.UTC)
        seconds, microseconds = await log.redis.time()
        answered = dt.datetime.now(dt.UTC)
        information = await log.redis.info()  # before Redis 7 it takes no more than one section
        relayed = bool(await log.redis.exists(log.lease))
    time = dt.datetime.fromtimestamp(seconds, dt.UTC) + dt.timedelta(microseconds=microseconds)
    description = await log.describe()
    last = None if description is None else await log.last(description.id)
    return LogState(
        version=str(information.get("redis_version", "?")),
        used_bytes=int(information.get("used_memory", 0)),
        max_bytes=int(information.get("maxmemory", 0)),
        policy=str(information.get("maxmemory_policy", "noeviction")),
        append_only=bool(information.get("aof_enabled")),
        relayed=relayed,
        newest=None if last is None else last.entry.at,
        listeners=await log.listeners(),
        ahead=time - (asked + (answered - asked) / 2),
    )
