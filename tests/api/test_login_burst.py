"""Many sign-ins at once, on a server of their own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.api.conftest import Starter
from tests.api.servers import PASSWORD, Server, serving

AT_ONCE = 100
#: The bound of DESIGN for the event loop, in milliseconds.
MOST_LAG = 50
#: Two hashes at a time take 19 MiB each; the rest is what a hundred connections and the allocator hold.
MOST_GROWTH_KIB = 120 * 1024


def kibibytes(server: Server, name: str) -> int:
    """A line of the process's status, such as `VmRSS`. https://man7.org/linux/man-pages/man5/proc.5.html"""
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found.group(1))


async def signed_in(client: httpx.AsyncClient, server: Server) -> int:
    """Sign in, coming back as often as the server says that it is busy; returns how often."""
    turned_away = 0
    while True:
        body = {"username": "crowd", "password": PASSWORD}
        answer = await client.post(f"{server.url}/api/v1/auth/login", json=body)
        if answer.status_code == 200:
            return turned_away
        assert answer.status_code == 503, answer.text
        turned_away += 1
        await asyncio.sleep(int(answer.headers["retry-after"]))


async def test_hundred_at_once(tmp_path: Path, server_settings: Starter, free_port: Callable[[], int]) -> None:
    """All get in, some after being told to come back; the event loop stays free and memory bounded."""
    measured = tmp_path / "lag.txt"
    settings = server_settings(documents="tests.api.lag_probe,documents.models")
    settings |= {"HEADWATER_LOGIN_RATE_LIMIT": "100000/minute", "LAG_PROBE_FILE": str(measured)}
    with serving(tmp_path, free_port(), settings) as server:
        await asyncio.to_thread(server.register, "crowd")
        before, already = kibibytes(server, "VmRSS"), len(measured.read_text().splitlines())
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=AT_ONCE)) as client:
            turned_away = await asyncio.gather(*(signed_in(client, server) for _ in range(AT_ONCE)))
        lines = [line.split() for line in measured.read_text().splitlines()[already:]]
        growth = kibibytes(server, "VmHWM") - before
    lags = sorted(float(lag) for lag, _ in lines)
    # What the loop's thread itself spent between two turns. The rest of a lag is other programs on a busy machine.
    blocked = max(min(float(lag), float(worked)) for lag, worked in lines)
    assert len(lags) > AT_ONCE, "too few measurements to prove anything"
    assert any(turned_away), "the pool's queue was never full"
    assert lags[len(lags) * 99 // 100] < MOST_LAG, lags[-10:]
    assert blocked < MOST_LAG, blocked
    assert growth < MOST_GROWTH_KIB, f"{growth} KiB"
