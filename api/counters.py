"""Counts of what somebody did lately, against limits: in memory, or in Redis, where all workers share them.

The counting is that of the library `limits`: sliding windows, of which one costs two numbers whatever the limit is.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage, RedisStorage
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from documents import PoolUse
from realtime import CLUSTER, RedisPlace, use_of

logger = logging.getLogger("headwater.counters")

Limits = tuple[RateLimitItem, ...]
_T = TypeVar("_T")

#: A request waits this long for Redis at most, once; then it is counted in memory.
REDIS_TIMEOUT_SECONDS = 0.3
#: While Redis is away, one request in this time asks it again.
REDIS_RETRY_SECONDS = 1.0
REDIS_CONNECTIONS = 32
#: Keys of one purpose that are kept in memory: about 20 MB. A flood from more addresses than that forgets the oldest.
MAX_KEYS = 100_000


def parse_limits(text: str) -> Limits:
    """Limits as the `limits` library writes them: `10/minute;100/hour`. Raises ValueError."""
    items = tuple(parse_many(text))
    if not items or any(item.amount < 1 or item.get_expiry() < 1 for item in items):
        raise ValueError("every limit must allow something")
    return items


def scaled(limits: Limits, factor: int) -> Limits:
    """The same limits with `factor` times the amounts."""
    return tuple(type(item)(item.amount * factor, item.multiples, item.namespace) for item in limits)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where somebody stands with their limits: that one of them which leaves least.

    `allowed`: whether what was asked is within the limits. `reset_seconds`: when `remaining` has grown, rounded up; a
    refused one may try again then.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: int

    def headers(self) -> dict[str, str]:
        """The headers that tell the caller."""
        told = {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
        }
        return told if self.allowed else told | {"Retry-After": str(self.reset_seconds)}


class _Memory(MemoryStorage):
    """The library's storage without its sweep, which looks at every key after each hit; the oldest keys go instead.

    Nothing here waits, so a hit is one step of the event loop and needs no lock.
    """

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        count = await self.get(key) + amount
        if key not in self.expirations:
            now = time.time()
            while self.expirations:
                oldest = next(iter(self.expirations))
                if self.expirations[oldest] > now and len(self.expirations) < MAX_KEYS:
                    break
                await self.clear(oldest)
            self.expirations[key] = now + expiry
        self.storage[key] = count
        return count

    async def decr(self, key: str, amount: int = 1) -> int:
        self.storage[key] = max(await self.get(key) - amount, 0)
        return self.storage[key]


_Storage = MemoryStorage | RedisStorage


class Counters:
    """Counts against limits, per key. A key begins with its purpose: purposes do not crowd each other out of memory.

    When Redis does not answer, or refuses to write, counting goes on in this process's memory, which starts from
    nothing: for that time a limit is one per process, and nobody is refused or delayed because Redis is away. The log
    tells of it once, and once when Redis is back.
    """

    def __init__(self, redis_url: str | None, database_id: str) -> None:
        self._memory: defaultdict[str, MemoryStorage] = defaultdict(_Memory)
        self._redis: RedisStorage | None = None
        self._pool: BlockingConnectionPool | None = None
        #: How many were refused since the start, by limit; whoever refuses counts.
        self.refused: Counter[str] = Counter()
        self._away = False
        self._ask_again_at = 0.0
        if redis_url is not None:
            place = RedisPlace.parse(redis_url)
            # A restored or exchanged database has another id, and so counts of its own.
            prefix = f"headwater:{database_id}:limits"
            if place.kind == CLUSTER:
                # The braces keep them on one node, where the library's scripts need them.
                prefix = f"{{{prefix}}}"
            self._pool = place.pool(
                BlockingConnectionPool,
                prefix,
                max_connections=REDIS_CONNECTIONS,
                # One wait for all of it is set around each use. With a time limit of its own redis-py sends within
                # `asyncio.wait_for`, which until Python 3.12 can drop the end of ours (CPython issue 86296).
                timeout=None,
                socket_timeout=None,
                socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
                # A pooled connection may have died with a Redis that was restarted; a second one tells.
                retry=Retry(NoBackoff(), 1),
            )
            self._redis = RedisStorage(
                # Only the kind of client: the connections are ours.
                "async+redis://",
                implementation="redispy",
                key_prefix=prefix,
                connection_pool=self._pool,  # type: ignore[arg-type]  # documented; the annotation forgot it
            )

    @property
    def pool(self) -> PoolUse | None:
        """The connections to Redis; None where there is none."""
        return None if self._pool is None else use_of(self._pool)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._pool is not None:
            await self._pool.disconnect()

    async def hit(self, limits: Limits, *key: str, cost: int = 1) -> Standing:
        """Count `cost` where every limit allows it. A cost above a limit counts as the whole of it."""

        async def count(storage: _Storage) -> Standing:
            standings = []
            for item in limits:
                name, amount = item.key_for(*key), min(cost, item.amount)
                allowed = await storage.acquire_sliding_window_entry(name, item.amount, item.get_expiry(), amount)
                standings.append(await _standing(storage, item, name, allowed, amount))
                if not allowed:
                    break
            return _narrowest(standings)

        return await self._use(key[0], count)

    async def peek(self, limits: Limits, *key: str) -> Standing:
        """Whether one more would be allowed; counts nothing."""

        async def look(storage: _Storage) -> Standing:
            return _narrowest([await _standing(storage, item, item.key_for(*key), None, 1) for item in limits])

        return await self._use(key[0], look)

    async def mark(self, seconds: int, *key: str) -> None:
        """Remember `key` for this long."""

        async def remember(storage: _Storage) -> None:
            name = "/".join(key)
            await storage.clear(name)
            await storage.incr(name, seconds)

        await self._use(key[0], remember)

    async def is_marked(self, *key: str) -> bool:
        """Whether `key` is remembered."""

        async def look(storage: _Storage) -> bool:
            return await storage.get("/".join(key)) > 0

        return await self._use(key[0], look)

    async def _use(self, purpose: str, work: Callable[[_Storage], Awaitable[_T]]) -> _T:
        """Do `work` in Redis, or in memory where there is none or it is away. Safe to cancel: a count may be lost."""
        if self._redis is not None and not (self._away and time.monotonic() < self._ask_again_at):
            # The others go on in memory while this one asks.
            self._ask_again_at = time.monotonic() + REDIS_RETRY_SECONDS
            try:
                async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
                    done = await work(self._redis)
            except (RedisError, OSError, TimeoutError, RuntimeError) as error:
                if not self._away:
                    logger.warning(
                        "Redis is away (%s): requests are counted in this process alone until it is back",
                        type(error).__name__,
                    )
                self._away = True
                self._ask_again_at = time.monotonic() + REDIS_RETRY_SECONDS
            else:
                if self._away:
                    logger.warning("Redis is back: requests are counted there again")
                self._away = False
                return done
        return await work(self._memory[purpose])


async def _standing(storage: _Storage, item: RateLimitItem, name: str, allowed: bool | None, cost: int) -> Standing:
    """The standing with one limit. `allowed`: whether `cost` was let in just now; None when nobody has asked yet."""
    seconds = item.get_expiry()
    earlier, earlier_left, now, now_left = await storage.get_sliding_window(name, seconds)
    remaining = max(0, item.amount - math.floor(earlier * earlier_left / seconds) - now)
    if allowed is None:
        allowed = remaining >= cost
    if remaining == item.amount:
        return Standing(allowed, item.amount, remaining, 0)
    # What has to be free for the one who was refused; for others, when there is more than now.
    free = remaining + 1 if allowed else max(cost, 1)
    wait = _wait(item.amount - free, seconds, earlier, earlier_left, now, max(0.0, now_left - seconds))
    # Rounded up, and never to the moment itself: whoever waits so long is let in.
    return Standing(allowed, item.amount, remaining, math.floor(wait) + 1)


def _wait(most: int, seconds: int, earlier: int, earlier_left: float, now: int, now_left: float) -> float:
    """The time until the weighted count is `most` or less, if nothing is added.

    The count is ⌊earlier · earlier_left / seconds⌋ + now; when `now_left` has passed, `now` is the earlier window.
    """
    if now <= most and earlier:
        return max(0.0, earlier_left - seconds * (most - now + 1) / earlier)
    if now <= most:
        return 0.0
    return now_left + max(0.0, seconds - seconds * (most + 1) / now)


def _narrowest(standings: list[Standing]) -> Standing:
    return min(standings, key=lambda standing: (standing.allowed, standing.remaining, -standing.reset_seconds))
