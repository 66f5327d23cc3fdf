"""The database goes away under a running server, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from documents import EmbeddedDatabase
from tests.api.conftest import Starter
from tests.api.servers import Server, User, live, serving, wait_until
from tests.api.test_errors import SOME_ID, problem

AWAY_SECONDS = 40


@dataclass
class Outage:
    """A database of our own that can be stopped and started under the server."""

    runner: asyncio.Runner
    database: EmbeddedDatabase
    server: Server
    user: User

    def begin(self) -> None:
        """Stop the database; returns when the server has noticed."""
        self.runner.run(self.database.stop())
        wait_until(lambda: self.readiness().status_code == 503, seconds=AWAY_SECONDS)

    def end(self) -> None:
        """Start it again; returns when the server serves again."""
        self.runner.run(self.database.start())
        wait_until(lambda: self.readiness().status_code == 200, seconds=AWAY_SECONDS)

    def readiness(self) -> httpx.Response:
        """What the server tells a load balancer."""
        return httpx.get(f"{self.server.url}/health/ready", timeout=30)


@pytest.fixture
def outage(tmp_path: Path, server_settings: Starter, free_port: Callable[[], int]) -> Iterator[Outage]:
    """A server on a database of its own."""
    with asyncio.Runner() as runner:
        database = EmbeddedDatabase(tmp_path / "data", free_port(), durable=False)
        url = runner.run(database.start())
        try:
            with serving(tmp_path, free_port(), server_settings(mongodb_url=url)) as server:
                yield Outage(runner, database, server, server.register("alice"))
        finally:
            runner.run(database.stop())


def test_outage(outage: Outage) -> None:
    """Meanwhile 503 with Retry-After and open sockets; afterwards all works and no change was missed."""
    user, server = outage.user, outage.server
    post = user.client.post("/posts", json={"title": "before", "status": "published"}).json()
    with live(server, user.token) as connection:
        connection.subscribe("1")
        outage.begin()

        def refused(method: str, path: str) -> None:
            body = {"username": "alice", "password": "x"} if "login" in path else {"title": "meanwhile"}
            answer = user.client.request(method, path, json=body if method[0] == "P" else None)
            problem(answer, 503, "unavailable")
            assert answer.headers["retry-after"].isdecimal()

        calls = [
            ("GET", "/posts"),
            ("GET", f"/posts/{post['id']}"),
            ("POST", "/posts"),
            ("PUT", f"/posts/{SOME_ID}"),
            ("PATCH", f"/posts/{post['id']}"),
            ("DELETE", f"/posts/{post['id']}"),
            ("POST", "/auth/login"),
            ("GET", "/users/me"),
        ]
        # At once, because each takes as long as the driver looks for a server.
        with ThreadPoolExecutor(len(calls)) as pool:
            for future in [pool.submit(refused, *call) for call in calls]:
                future.result()
        assert outage.readiness().json()["checks"]["database"] == "away"
        assert httpx.get(f"{server.url}/health/live", timeout=30).json() == {"status": "live"}
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        assert connection.answers_ping()

        outage.end()
        made = user.client.post("/posts", json={"title": "after", "status": "published"})
        assert made.status_code == 201
        event = connection.receive()
        while event["type"] != "event":  # a reset and a snapshot are an honest answer to an outage, silence is not
            assert event["type"] in ("reset", "snapshot", "ready"), event
            event = connection.receive()
        assert (event["op"], event["id"]) == ("create", made.json()["id"])
        assert connection.answers_ping()
    assert [item["title"] for item in user.client.get("/posts?sort=title").json()["items"]] == ["after", "before"]
    log = server.stop()
    assert "Traceback" not in log
    assert [secret for secret in server.secrets if secret in log] == []


def test_sign_in_is_not_doubted_during_an_outage(outage: Outage) -> None:
    """A token that cannot be checked is a 503, not a 401 that would sign the user out."""
    unseen = outage.server.login("alice")
    outage.begin()
    answer = outage.server.client(unseen).get("/users/me")
    problem(answer, 503, "unavailable")
    with live(outage.server) as connection:
        connection.send(type="auth", token=unseen)
        assert connection.close_code() == 1012
