"""A server on which nobody can register, in memory and without a first admin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx

from tests.api.servers import SECRET, serving
from tests.api.test_accounts import registration
from tests.api.test_errors import places, problem


def test_registering(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Is forbidden; a body that is not accepted is told so all the same."""
    settings = {
        "HEADWATER_MONGODB_URL": "mongomock://",
        "HEADWATER_REGISTRATION": "closed",
        "HEADWATER_SECRET_KEY": SECRET,
    }
    with serving(tmp_path, free_port(), settings) as server:
        url = f"{server.url}/api/v1/auth/register"
        problem(httpx.post(url, json=registration()), 403, "forbidden")
        assert places(httpx.post(url, json={})) == [["body", name] for name in ("username", "email", "password")]
        assert httpx.get(f"{server.url}/api/v1/posts").json()["items"] == []
        server.stop()
        server.check_log()
