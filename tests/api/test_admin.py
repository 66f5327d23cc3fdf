"""What admins see and do of all workers: who serves, who is connected, and who is to be disconnected."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient
from pymongo.database import Database

from tests.api.conftest import Starter
from tests.api.servers import Server, User, live, serving, wait_until
from tests.api.test_api_keys import key_of
from tests.api.test_errors import places, problem
from tests.api.test_event_stream import streaming
from tests.api.test_workers import alive

SOME_ID = "65f2a7c09b3e4a0d1c2f8b11"
CALLS = [
    ("GET", "/admin/workers"),
    ("GET", "/admin/connections"),
    ("GET", f"/admin/connections?user={SOME_ID}"),
    ("DELETE", f"/admin/connections?user={SOME_ID}"),
]
#: Nothing says which worker accepts a connection; of so many each of two has one, but for one time in 2,000.
MANY = 12


@pytest.fixture(scope="module")
def admin(server: Server) -> httpx.Client:
    """An admin of the shared server."""
    return server.client(server.login("admin"))


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_others(
    server: Server, alice: User, moderator: User, anonymous: httpx.Client, admin: httpx.Client, method: str, path: str
) -> None:
    """Nobody but an admin learns anything, or closes anything; an admin's API key is no admin."""
    problem(anonymous.request(method, path), 401, "unauthorized")
    problem(alice.client.request(method, path), 403, "forbidden")
    problem(moderator.client.request(method, path), 403, "forbidden")
    key = key_of(server, User("", "admin", "", admin), "users:read", "posts:write")
    problem(key.client.request(method, path), 403, "forbidden")
    assert admin.request(method, path).status_code == 200


@pytest.mark.parametrize(
    ("method", "query", "place"),
    [
        ("GET", "?user=alice", "user"),
        ("GET", "?user=", "user"),
        ("GET", "?limit=0", "limit"),
        ("GET", "?limit=1001", "limit"),
        ("GET", "?limit=-1", "limit"),
        ("GET", "?limit=%C2%B2", "limit"),
        ("GET", "?sort=id", "sort"),
        ("GET", f"?user={SOME_ID}&user={SOME_ID}", "user"),
        ("DELETE", "", "user"),
        ("DELETE", "?user[$ne]=x", "user[$ne]"),
        ("DELETE", f"?user={SOME_ID}&limit=1", "limit"),
    ],
)
def test_malformed_query(admin: httpx.Client, server: Server, method: str, query: str, place: str) -> None:
    """The place is named, and no connection is closed."""
    with live(server) as socket:
        assert places(admin.request(method, f"/admin/connections{query}")) == [["query", place]]
        assert socket.answers_ping()


def test_connections(server: Server, alice: User, admin: httpx.Client) -> None:
    """Sockets and event streams are listed with their users and where they come from."""
    before = admin.get("/admin/connections").json()["total"]
    with live(server, alice.token) as socket, live(server), streaming(alice.client, "/posts") as stream:
        socket.subscribe("1")
        stream.event()
        content = admin.get(f"/admin/connections?user={alice.id}").json()
        assert content["total"] == 2
        by_transport = {item["transport"]: item for item in content["items"]}
        assert set(by_transport) == {"websocket", "event_stream"}
        one = by_transport["websocket"]
        assert one["user"] == {"id": alice.id, "username": "alice"}
        assert (one["address"], one["subscriptions"]) == ("127.0.0.1", 1)
        assert one["sent_bytes"] > 0
        everyone = admin.get("/admin/connections").json()
        assert everyone["total"] == before + 3
        assert None in [item["user"] for item in everyone["items"]]
        first = admin.get("/admin/connections?limit=1").json()
        assert (len(first["items"]), first["total"]) == (1, before + 3)
        (worker,) = admin.get("/admin/workers").json()["items"]
        assert worker["id"] == one["worker"]
        assert (worker["connections"], worker["pid"]) == (before + 3, server.process.pid)
        assert (worker["feed"], worker["relay"], worker["draining"]) == ("local", False, False)
    wait_until(lambda: admin.get("/admin/connections").json()["total"] == before)


def test_event_stream_of_a_user_who_is_kicked(bob: User, admin: httpx.Client) -> None:
    """The stream says why it ends, in place of a code."""
    with streaming(bob.client, "/posts") as stream:
        stream.event()
        stream.event()
        assert admin.delete(f"/admin/connections?user={bob.id}").json() == {"closed": 1, "silent": []}
        last = stream.event()
        assert (last.name, last.data["code"]) == ("problem", "forbidden")


@pytest.fixture(scope="module")
def settings(server_settings: Starter) -> dict[str, str]:
    """Those of two workers, which share nothing but the database."""
    return server_settings(workers="2")


@pytest.fixture(scope="module")
def workers(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], free_port: Callable[[], int]
) -> Iterator[Server]:
    """Two workers, ready."""
    with serving(tmp_path_factory.mktemp("workers"), free_port(), settings) as server:
        wait_until(lambda: len(alive(server)) == 2)
        yield server
        server.stop()
        server.check_log()


@pytest.fixture(scope="module")
def mongo_of_workers(settings: dict[str, str], mongodb_url: str) -> Iterator[Database[dict[str, Any]]]:
    """The workers' database, as another program sees it."""
    with MongoClient[dict[str, Any]](mongodb_url) as client:
        yield client[settings["HEADWATER_DATABASE"]]


@pytest.fixture(scope="module")
def chief(workers: Server) -> httpx.Client:
    """An admin of the workers."""
    return workers.client(workers.login("admin"))


def test_all_workers(workers: Server, chief: httpx.Client) -> None:
    """Whichever worker is asked, all are told of."""
    wait_until(lambda: len(chief.get("/admin/workers").json()["items"]) == 2)
    for _ in range(MANY):
        # Each on a connection of its own, and so of any worker.
        with httpx.Client(base_url=chief.base_url, headers=chief.headers) as asking:
            told = asking.get("/admin/workers").json()["items"]
        assert sorted(worker["pid"] for worker in told) == sorted(alive(workers))


def test_kick(workers: Server, chief: httpx.Client, mongo_of_workers: Database[dict[str, Any]]) -> None:
    """All sockets of a user are closed on all workers, and nobody else's; the session is still good."""
    user, other = workers.register("mara"), workers.register("nils")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(live(workers, user.token)) for _ in range(MANY)]
        bystander = stack.enter_context(live(workers, other.token))
        listed = chief.get(f"/admin/connections?user={user.id}").json()
        assert listed["total"] == len(listed["items"]) == MANY
        assert len({item["worker"] for item in listed["items"]}) == 2
        assert chief.delete(f"/admin/connections?user={user.id}").json() == {"closed": MANY, "silent": []}
        assert [socket.close_code() for socket in sockets] == [4503] * MANY
        assert bystander.answers_ping()
    assert user.client.get("/users/me").status_code == 200
    with live(workers, user.token) as again:
        assert again.answers_ping()
    entries = mongo_of_workers["headwater_audit"]
    wait_until(lambda: entries.count_documents({"event": "connections_closed"}) == 1)
    (entry,) = entries.find({"event": "connections_closed"})
    assert (str(entry["user_id"]), entry["details"]) == (user.id, {"closed": MANY})
    # Nothing stays of what the workers told each other.
    wait_until(lambda: mongo_of_workers["headwater_orders"].count_documents({}) == 0)
    assert mongo_of_workers["headwater_replies"].count_documents({}) == 0


def test_database_that_refuses_a_worker(
    tmp_path: Path, server_settings: Starter, mongodb_url: str, free_port: Callable[[], int]
) -> None:
    """In a way that nobody has foreseen: when it no longer does, the worker is seen, and obeys, as before."""
    settings = server_settings()
    with serving(tmp_path, free_port(), settings) as server, MongoClient[dict[str, Any]](mongodb_url) as client:
        mongo = client[settings["HEADWATER_DATABASE"]]
        wait_until(lambda: mongo["headwater_workers"].count_documents({}) == 1)
        mongo.command("collMod", "headwater_workers", validator={"never": {"$exists": True}})
        wait_until(lambda: "this worker cannot hear of orders for now" in server.log)
        seen_at = mongo["headwater_workers"].find_one({})["seen_at"]  # type: ignore[index]
        mongo.command("collMod", "headwater_workers", validator={})
        wait_until(lambda: mongo["headwater_workers"].find_one({"seen_at": {"$gt": seen_at}}))
        assert server.log.count("this worker cannot hear of orders for now") == 1


def test_worker_that_hangs(workers: Server, chief: httpx.Client) -> None:
    """It is named as silent, nobody waits for it for long, and it closes what it was told to when it is back."""
    user = workers.register("olaf")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(live(workers, user.token)) for _ in range(MANY)]
        hung = chief.get("/admin/workers").json()["items"][0]
        os.kill(hung["pid"], signal.SIGSTOP)
        try:
            began = time.monotonic()
            # On a connection of its own, which the other worker accepts.
            with httpx.Client(base_url=chief.base_url, headers=chief.headers, timeout=30) as asking:
                answer = asking.delete(f"/admin/connections?user={user.id}").json()
            assert time.monotonic() - began < 10
            assert answer["silent"] == [hung["id"]]
            assert 0 < answer["closed"] < MANY
        finally:
            os.kill(hung["pid"], signal.SIGCONT)
        assert [socket.close_code() for socket in sockets] == [4503] * MANY
