"""Counters, in memory and in a real Redis: the same behaviour, and what becomes of it when Redis goes away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api import counters as module
from api.counters import Counters, parse_limits, scaled
from tests.redis_server import RedisServer, running_redis
from tests.waiting import until

THREE = parse_limits("3/minute")


@asynccontextmanager
async def counting(url: str | None, database_id: str) -> AsyncIterator[Counters]:
    """Counters that are closed when the block ends."""
    made = Counters(url, database_id)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(params=["memory", "redis"])
async def counters(request: pytest.FixtureRequest, database_name: str) -> AsyncIterator[Counters]:
    """Counters of either kind, with nothing counted yet."""
    url = request.getfixturevalue("module_redis").url if request.param == "redis" else None
    async with counting(url, database_name) as made:
        yield made


async def test_limit_reached(counters: Counters) -> None:
    """The one above is refused and told when to come back; somebody else is not."""
    standings = [await counters.hit(THREE, "test", "a") for _ in range(4)]
    assert [standing.allowed for standing in standings] == [True, True, True, False]
    assert [standing.remaining for standing in standings] == [2, 1, 0, 0]
    refused = standings[-1]
    assert refused.limit == 3
    assert 0 < refused.reset_seconds <= 120
    assert refused.headers() == {
        "RateLimit-Limit": "3",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": str(refused.reset_seconds),
        "Retry-After": str(refused.reset_seconds),
    }
    other = await counters.hit(THREE, "test", "b")
    assert other.allowed
    assert "Retry-After" not in other.headers()


async def test_looking(counters: Counters) -> None:
    """Counts nothing, and says what would be."""
    assert [(await counters.peek(THREE, "test", "a")).remaining for _ in range(3)] == [3, 3, 3]
    for _ in range(3):
        assert (await counters.peek(THREE, "test", "a")).allowed
        await counters.hit(THREE, "test", "a")
    assert not (await counters.peek(THREE, "test", "a")).allowed


async def test_cost(counters: Counters) -> None:
    """Counts as many; what costs more than the whole limit counts as the whole of it."""
    assert (await counters.hit(THREE, "test", "a", cost=2)).remaining == 1
    assert not (await counters.hit(THREE, "test", "a", cost=2)).allowed
    assert (await counters.hit(THREE, "test", "a")).allowed
    assert (await counters.hit(THREE, "test", "b", cost=50)).allowed
    assert not (await counters.hit(THREE, "test", "b")).allowed


async def test_many_at_once(counters: Counters) -> None:
    """No more than the limit are let in."""
    ten = parse_limits("10/minute")
    standings = await asyncio.gather(*(counters.hit(ten, "test", "a") for _ in range(50)))
    assert sum(standing.allowed for standing in standings) == 10


async def test_several_limits(counters: Counters) -> None:
    """The narrower one decides, and its numbers are told."""
    both = parse_limits("100/minute;2/hour")
    standings = [await counters.hit(both, "test", "a") for _ in range(3)]
    assert [(standing.limit, standing.allowed) for standing in standings] == [(2, True), (2, True), (2, False)]


async def test_coming_back_when_told(counters: Counters) -> None:
    """Whoever waits as long as they were told is let in."""
    two = parse_limits("2/second")
    while (refused := await counters.hit(two, "test", "a")).allowed:
        pass
    await asyncio.sleep(refused.reset_seconds)  # the time itself is what is tested
    assert (await counters.hit(two, "test", "a")).allowed


async def test_mark(counters: Counters) -> None:
    """Is there until its time is over."""
    assert not await counters.is_marked("known", "a")
    await counters.mark(1, "known", "a")
    await counters.mark(1, "known", "a")
    assert await counters.is_marked("known", "a")

    async def is_forgotten() -> bool:
        return not await counters.is_marked("known", "a")

    await until(is_forgotten)


@pytest.mark.parametrize(("earlier", "earlier_left", "now", "now_left"), [(7, 31.0, 4, 31.0), (0, 0.0, 10, 12.5)])
@pytest.mark.parametrize("most", range(10))
def test_time_to_wait(earlier: int, earlier_left: float, now: int, now_left: float, most: int) -> None:
    """Is the first moment at which the weighted count is low enough."""

    def count(after: float) -> int:
        if after < now_left:
            return int(earlier * (earlier_left - after) / 60) + now
        return int(now * max(0.0, 60 - (after - now_left)) / 60)

    wait = module._wait(most, 60, earlier, earlier_left, now, now_left)
    assert count(wait + 0.01) <= most
    assert wait == 0 or count(wait - 0.01) > most


async def test_flood_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory keeps a bounded number of them for each purpose, and forgets the oldest."""
    monkeypatch.setattr(module, "MAX_KEYS", 100)
    async with counting(None, "x") as counters:
        await counters.hit(THREE, "other", "a", cost=3)
        for number in range(500):
            await counters.hit(THREE, "test", str(number), cost=3)
        assert not (await counters.peek(THREE, "other", "a")).allowed
        assert not (await counters.peek(THREE, "test", "499")).allowed
        assert (await counters.peek(THREE, "test", "0")).allowed
        assert len(counters._memory["test"].storage) <= 100


def test_scaled_limits() -> None:
    """Allow so many times as much in the same time."""
    assert [str(item) for item in scaled(parse_limits("10/2 minute;100/hour"), 5)] == [
        "50 per 2 minute",
        "500 per 1 hour",
    ]


@pytest.mark.parametrize("text", ["", "many", "0/minute", "5/fortnight", "5"])
def test_no_limits(text: str) -> None:
    """Are refused."""
    with pytest.raises(ValueError, match=r"."):
        parse_limits(text)


async def test_databases_that_share_a_redis(module_redis: RedisServer, database_name: str) -> None:
    """Count apart; workers of one database count together."""
    async with (
        counting(module_redis.url, database_name) as one,
        counting(module_redis.url, database_name) as two,
        counting(module_redis.url, "other") as foreign,
    ):
        await one.hit(THREE, "test", "a", cost=2)
        assert (await two.hit(THREE, "test", "a")).remaining == 0
        assert (await foreign.hit(THREE, "test", "a")).remaining == 2
    with module_redis.client() as client:
        keys = client.keys(f"headwater:{database_name}:*")
        assert keys
        # Nothing stays for ever.
        assert all(client.ttl(key) > 0 for key in keys)


async def test_redis_that_dies_and_comes_back(
    tmp_path: Path,
    free_port: Callable[[], int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests go on being counted, here; then in Redis again. The log says each once."""
    monkeypatch.setattr(module, "REDIS_RETRY_SECONDS", 0.05)
    caplog.set_level(logging.INFO, "headwater.counters")
    with running_redis(tmp_path, free_port()) as server:
        async with counting(server.url, "x") as counters:
            assert (await counters.hit(THREE, "test", "a", cost=2)).remaining == 1
            server.kill()
            standings = [await counters.hit(THREE, "test", "a") for _ in range(4)]
            assert [standing.allowed for standing in standings] == [True, True, True, False]
            assert len(caplog.records) == 1
            server.start()

            async def counts_in_redis() -> bool:
                return (await counters.hit(THREE, "test", "b")).allowed and not counters._away

            await until(counts_in_redis)
            with server.client() as client:
                assert client.keys("headwater:x:*")
    assert [record.getMessage().partition(" (")[0].partition(":")[0] for record in caplog.records] == [
        "Redis is away",
        "Redis is back",
    ]


async def test_redis_that_hangs(free_port: Callable[[], int], caplog: pytest.LogCaptureFixture) -> None:
    """Delays those who find out by less than a second, and nobody else; one at a time asks it again."""
    asked = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    caplog.set_level(logging.CRITICAL, "headwater.counters")
    port = free_port()
    async with (
        await asyncio.start_server(hang, "127.0.0.1", port),
        counting(f"redis://127.0.0.1:{port}", "x") as counters,
    ):
        for most, seconds in ((100, 0.6), (2, 0.1)):
            asked = 0
            began = time.monotonic()
            standings = await asyncio.gather(*(counters.hit(THREE, "test", str(n)) for n in range(50)))
            assert all(standing.allowed for standing in standings)
            assert asked <= most
            assert time.monotonic() - began < seconds
