"""A Redis and a database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.realtime.relay.nodes import Setting, setting_on
from tests.redis_server import RedisServer, running_redis


@pytest.fixture
def redis(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[RedisServer]:
    with running_redis(tmp_path, free_port()) as server:
        yield server


@pytest.fixture
async def setting(mongodb_url: str, database_name: str, redis: RedisServer) -> AsyncIterator[Setting]:
    async with setting_on(mongodb_url, database_name, redis.url) as setting:
        yield setting
