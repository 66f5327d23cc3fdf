"""How this worker's feed gets its changes, and how far behind the database it is."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal

from realtime.feed import Feed
from realtime.feed_redis import RelayedSource
from realtime.log_redis import LogAway, RedisLog, away
from realtime.relay import Relay

#: `relayed`: from the log that workers share. `direct`: from the change stream, because Redis or the relay is away.
#: `local`: from the change stream, because there is no Redis.
FeedMode = Literal["relayed", "direct", "local"]
FEED_MODES: Final[tuple[FeedMode, ...]] = ("relayed", "direct", "local")

#: A health check waits so long for Redis.
REDIS_PATIENCE: Final = dt.timedelta(seconds=1)
#: The heartbeat moves the feed of a quiet database as often as this.
_BEAT: Final = dt.timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Relaying:
    """What takes part in sharing the log. There is none of it without Redis."""

    relay: Relay
    source: RelayedSource
    log: RedisLog


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """Asks the parts of the feed. `beats`: whether a heartbeat moves it, so that silence means delay."""

    feed: Feed
    relaying: Relaying | None = None
    beats: bool = True

    @property
    def mode(self) -> FeedMode:
        """Where changes come from at the moment."""
        if self.relaying is None:
            return "local"
        return "direct" if self.relaying.source.direct else "relayed"

    @property
    def leading(self) -> bool:
        """Whether this worker is the relay."""
        return self.relaying is not None and self.relaying.relay.leading

    @property
    def lag_seconds(self) -> float:
        """How far the feed is behind the database: the delay of its last entry, or how long one is overdue.

        Compares the database's clock with this machine's; never below zero.
        """
        overdue = self.feed.silence.total_seconds() - _BEAT.total_seconds() if self.beats else 0.0
        return max(self.feed.delay_seconds, overdue, 0.0)

    async def redis_answers(self) -> bool | None:
        """Whether Redis answers; None where there is none."""
        if self.relaying is None:
            return None
        try:
            async with asyncio.timeout(REDIS_PATIENCE.total_seconds()):
                with away():
                    await self.relaying.log.redis.ping()
        except (LogAway, TimeoutError):
            return False
        return True
