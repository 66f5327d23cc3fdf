"""Tickets: who gets one, what it opens once, and what ends that."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import Server, User, live, opened
from tests.api.test_api_keys import key_of, member
from tests.api.test_errors import SOME_ID, places, problem
from tests.api.test_event_stream import EVENTS, streaming
from tests.api.test_websocket import short_lived
from tests.waiting import promptly

Mongo = Database[dict[str, Any]]


def ticket_of(client: httpx.Client) -> str:
    """A ticket of whoever the client is."""
    answer = client.post("/auth/ticket")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    content = answer.json()
    assert (set(content), content["expires_in"]) == ({"ticket", "expires_in"}, 30)
    ticket: str = content["ticket"]
    return ticket


def close_code(server: Server, query: str, **how: Any) -> int | None:
    """How the server closes a socket that is opened with a query string."""
    with opened(server, query=query, **how) as connection:
        return connection.close_code()


def test_ticket_for_nobody(anonymous: httpx.Client) -> None:
    """401 for somebody who is not signed in."""
    problem(anonymous.post("/auth/ticket"), 401, "unauthorized")


@pytest.mark.parametrize(
    "query",
    [
        "ticket=", "ticket=nonsense", "ticket=%00", "ticket=%ff", "ticket[$ne]=", "ticket[$gt]=a", "ticket[]=a",
        "ticket=" + "x" * 5_000, "ticket={}&ticket={}", "ticket={}&ticket[$ne]=", "ticket={}&token=a",
        "ticket={}&api_key=a", "token={}", "api_key={}", "access_token={}", "token[$ne]=",
    ],
)  # fmt: skip
def test_query_string_that_is_no_ticket(server: Server, alice: User, anonymous: httpx.Client, query: str) -> None:
    """Operators, several, others' parameters: 4501 on the socket, 401 on the stream, and the ticket stays good."""
    ticket = ticket_of(alice.client)
    given = query.replace("{}", ticket)
    assert close_code(server, f"?{given}") == 4501
    problem(anonymous.get(f"/posts?{given}", headers=EVENTS), 401, "unauthorized")
    with live(server, query=f"?ticket={ticket}") as connection:
        assert connection.answers_ping()


def test_ticket_with_other_credentials(server: Server, alice: User) -> None:
    """Is refused, and stays good."""
    ticket, key = ticket_of(alice.client), key_of(server, alice, "posts:read")
    assert close_code(server, f"?ticket={ticket}", token=alice.token) == 4501
    assert close_code(server, f"?ticket={ticket}", key=key.text) == 4501
    for client in (alice.client, key.client):
        problem(client.get(f"/posts?ticket={ticket}", headers=EVENTS), 401, "unauthorized")
    with live(server, query=f"?ticket={ticket}") as connection:
        assert connection.answers_ping()


def test_ticket_for_anything_else(server: Server, alice: User, anonymous: httpx.Client, post: dict[str, Any]) -> None:
    """Good for no request, as a token or key, or in `auth`; it is not spent by being refused."""
    ticket = ticket_of(alice.client)
    url = f"/posts/{post['id']}"
    for method, path in (
        *(("GET", "/posts"), ("GET", url), ("POST", "/posts"), ("PATCH", url), ("DELETE", url), ("GET", "/users")),
        *(("GET", "/users/me"), ("GET", "/api-keys"), ("POST", "/auth/ticket"), ("HEAD", "/posts")),
        *(("GET", f"/users/{SOME_ID}"), ("DELETE", f"/api-keys/{SOME_ID}")),
    ):
        answer = anonymous.request(method, f"{path}?ticket={ticket}", json={} if method[0] == "P" else None)
        assert answer.status_code == 401, (method, path)
    for accept in ("text/csv", "application/x-ndjson", "application/json"):
        problem(anonymous.get(f"/posts?ticket={ticket}", headers={"Accept": accept}), 401, "unauthorized")
    problem(anonymous.get(f"/api-keys?ticket={ticket}", headers=EVENTS), 401, "unauthorized")
    problem(server.client(ticket).get("/posts"), 401, "unauthorized")
    problem(server.client(key=ticket).get("/posts"), 401, "unauthorized")
    for how in ({"token": ticket}, {"api_key": ticket}):
        with live(server) as connection:
            connection.send(type="auth", **how)
            assert connection.close_code() == 4501
    with streaming(anonymous, f"/posts?ticket={ticket}&title=none") as stream:
        assert stream.event().name == "snapshot"


def test_page_of_another_origin(server: Server, alice: User) -> None:
    """Cannot use a ticket that it got hold of: it is refused before, and does not spend it."""
    ticket = ticket_of(alice.client)
    with (
        pytest.raises(Exception, match="403"),
        opened(server, query=f"?ticket={ticket}", origin="https://evil.example"),
    ):
        pass
    with live(server, query=f"?ticket={ticket}") as connection:
        assert connection.answers_ping()


def test_ticket_that_is_used_twice(server: Server, alice: User, anonymous: httpx.Client) -> None:
    """The second use is refused, on the socket and on the stream: an EventSource that reconnects gets 401."""
    ticket = ticket_of(alice.client)
    with streaming(anonymous, f"/posts?ticket={ticket}&title=none") as stream:
        assert stream.event().name == "snapshot"
        problem(anonymous.get(f"/posts?ticket={ticket}", headers=EVENTS), 401, "unauthorized")
    refused = anonymous.get(f"/posts?ticket={ticket}", headers=EVENTS | {"Last-Event-ID": "v@1"})
    assert ticket not in refused.text
    problem(refused, 401, "unauthorized")
    assert close_code(server, f"?ticket={ticket}") == 4501


def test_ticket_that_is_used_twenty_times_at_once(server: Server, alice: User) -> None:
    """Exactly one socket is opened."""
    ticket = ticket_of(alice.client)

    def opens(_: int) -> bool:
        with opened(server, query=f"?ticket={ticket}") as connection:
            try:
                connection.send(type="ping", id="1")
                return [connection.receive()["type"] for _ in range(2)] == ["welcome", "pong"]
            except Exception:
                return False

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(opens, range(20))) == 1


def test_what_a_ticket_shows(server: Server, alice: User, anonymous: httpx.Client, draft: dict[str, Any]) -> None:
    """What its user may see, or what the key's scopes leave of that: socket and stream, users included."""
    reader, other = key_of(server, alice, "posts:read"), key_of(server, alice, "comments:read")
    for client, seen in ((alice.client, [draft["id"]]), (reader.client, [draft["id"]]), (other.client, [])):
        with live(server, query=f"?ticket={ticket_of(client)}") as connection:
            connection.send(type="subscribe", id="1", resource="posts", filter={"title": draft["title"]})
            items = connection.receive_until("ready")[1]["items"]
            assert [item["document"]["id"] for item in items] == seen
        with streaming(anonymous, f"/posts?title={draft['title']}&ticket={ticket_of(client)}") as stream:
            assert [item["document"]["id"] for item in stream.event().data["items"]] == seen
    with streaming(anonymous, f"/users?username=alice&ticket={ticket_of(alice.client)}") as stream:
        assert [item["document"]["id"] for item in stream.event().data["items"]] == [alice.id]
    assert places(anonymous.get(f"/posts?nope=1&ticket={ticket_of(alice.client)}", headers=EVENTS)) == [
        ["query", "nope"]
    ]


def test_sign_out_and_what_a_ticket_opened(server: Server, anonymous: httpx.Client, alice: User) -> None:
    """The socket closes with 4503 within a second; a ticket that was not used yet opens nothing."""
    tokens = server.sign_in(alice.username)
    client = server.client(tokens["access_token"])
    used, unused = ticket_of(client), ticket_of(client)
    with live(server, query=f"?ticket={used}") as connection, promptly():
        anonymous.post("/auth/logout", json={"refresh_token": tokens["refresh_token"]})
        assert connection.close_code() == 4503
    assert close_code(server, f"?ticket={unused}") == 4501


def test_key_that_is_deleted(server: Server, alice: User, anonymous: httpx.Client) -> None:
    """What its ticket opened ends within a second."""
    key = key_of(server, alice, "posts:read")
    with streaming(anonymous, f"/posts?snapshot=false&ticket={ticket_of(key.client)}") as stream:
        assert stream.event().name == "ready"
        alice.client.delete(f"/api-keys/{key.id}")
        with contextlib.suppress(StopIteration):
            while stream.event().name != "problem":
                pass
        # A stream that the server has ended.
        assert stream.response.is_stream_consumed


def test_end_of_the_token_that_asked(server: Server, alice: User) -> None:
    """The socket ends with it (4001), unless the client renews it there."""
    client = server.client(short_lived(alice, 2))
    first, second = ticket_of(client), ticket_of(client)
    with live(server, query=f"?ticket={first}") as ending, live(server, query=f"?ticket={second}") as renewed:
        renewed.send(type="auth", token=alice.token)
        assert {renewed.receive()["type"] for _ in range(2)} == {"auth_expiring", "authenticated"}
        assert ending.close_code() == 4001
        assert renewed.answers_ping()


def test_owner_who_is_deactivated(server: Server, mongo: Mongo) -> None:
    """A ticket from before opens nothing."""
    user = member(server)
    ticket = ticket_of(user.client)
    with live(server, user.token) as witness:
        mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"is_active": False}})
        assert witness.close_code() == 4503
    assert close_code(server, f"?ticket={ticket}") == 4501
