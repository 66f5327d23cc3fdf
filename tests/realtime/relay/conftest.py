"""A Redis and a database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.realtime.relay.nodes import Setting, setting_on
from tests.redis_server import RedisServer


@pytest.fixture
async def setting(mongodb_url: str, database_name: str, redis: RedisServer) -> AsyncIterator[Setting]:
    async with setting_on(mongodb_url, database_name, redis.url) as setting:
        yield setting
