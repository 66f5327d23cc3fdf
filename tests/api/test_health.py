"""Liveness and readiness. (What they say while the database is away: `test_database_away.py`.)"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import Starter
from tests.api.servers import Server, serving, wait_until
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def relayed(
    tmp_path_factory: pytest.TempPathFactory,
    module_redis: RedisServer,
    server_settings: Starter,
    free_port: Callable[[], int],
) -> Iterator[Server]:
    """A server with Redis."""
    folder: Path = tmp_path_factory.mktemp("relayed")
    with serving(folder, free_port(), server_settings(redis_url=module_redis.url)) as server:
        yield server


def ready(server: Server) -> tuple[int, dict[str, Any]]:
    """What the server says of its readiness."""
    answer = httpx.get(f"{server.url}/health/ready", timeout=30)
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()


def test_without_redis(server: Server) -> None:
    """There is nothing to be told of it."""
    status, content = ready(server)
    assert (status, content["status"]) == (200, "ready")
    assert content["checks"] == {"database": "ok", "feed": "ok", "worker": "ok"}
    assert (content["redis"], content["feed_mode"]) == ("unused", "local")
    assert 0 <= content["relay_lag_seconds"] < 30
    assert httpx.head(f"{server.url}/health/ready").status_code == 200
    assert httpx.get(f"{server.url}/health/live").json() == {"status": "live"}


def test_redis_that_goes(relayed: Server, module_redis: RedisServer) -> None:
    """The worker stays ready: it reads the changes itself."""

    def says(redis_is: str, mode: str) -> bool:
        status, content = ready(relayed)
        return (status, content["redis"], content["feed_mode"]) == (200, redis_is, mode)

    wait_until(lambda: says("ok", "relayed"))
    module_redis.kill()
    wait_until(lambda: says("away", "direct"))
    module_redis.start()
    wait_until(lambda: says("ok", "relayed"))


def test_draining(relayed: Server) -> None:
    """From the signal on the worker is not ready, while open connections are still answered; it is alive to the end."""
    with httpx.Client(base_url=relayed.url) as asking, httpx.Client(base_url=relayed.url) as other:
        assert asking.get("/health/ready").status_code == other.get("/health/live").status_code == 200
        relayed.process.send_signal(signal.SIGTERM)
        # The signal may come a moment after the request that was sent after it.
        while (answer := asking.get("/health/ready")).status_code == 200:
            pass
        assert answer.status_code == 503
        assert answer.json()["checks"] == {"database": "ok", "feed": "ok", "worker": "draining"}
        assert other.get("/health/live").status_code == 200
    assert relayed.process.wait(30) == 0
    assert "Traceback" not in relayed.log
