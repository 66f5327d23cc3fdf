"""The WebSocket's edge: who may open it, what is refused, and that a hostile client harms nobody."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from bson import ObjectId
from pymongo.database import Database
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from tests.api.servers import SECRET, Server, User, live, opened
from tests.waiting import promptly

Mongo = Database[dict[str, Any]]
ORIGIN = "https://app.example.org"


def short_lived(user: User, seconds: float) -> str:
    """A token of the user's session that expires soon."""
    claims = jwt.decode(user.token, SECRET, algorithms=["HS256"], audience="headwater-api")
    return jwt.encode(claims | {"exp": time.time() + seconds}, SECRET, algorithm="HS256")


@pytest.fixture
def witness(server: Server, alice: User, title: str) -> Iterator[Any]:
    """Call it after something hostile: another client, connected before, still hears of a change at once."""
    with live(server) as other:
        other.subscribe("w", filter={"title": title})

        def hears() -> None:
            made = alice.client.post("/posts", json={"title": title, "status": "published"})
            event = other.receive()
            assert (event["op"], event["id"]) == ("create", made.json()["id"])
            alice.client.delete(f"/posts/{made.json()['id']}")
            assert other.receive()["op"] == "delete"

        hears()
        yield hears


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.org",
        "null",
        "https://app.example.org.evil.example",
        "https://app.example.org:444",
        "http://app.example.org",
        "https://APP.example.org/",
        "http://[",
        "http://",
        "file://",
        "*",
        "",
    ],
)
def test_page_of_another_origin(server: Server, origin: str) -> None:
    """Is refused before the handshake."""
    with pytest.raises(InvalidStatus) as refused, opened(server, origin=origin):
        pass
    assert refused.value.response.status_code == 403


def test_pages_that_may_connect(server: Server) -> None:
    """An allowed origin, the server's own, and programs, which send none."""
    for origin in (ORIGIN, server.url, None):
        with live(server, origin=origin) as connection:
            assert connection.answers_ping()


def test_subprotocols(server: Server) -> None:
    """The known one is chosen from several; an unknown one alone is told 4509; none is fine."""
    with live(server, subprotocols=["other", "headwater.v1"]) as connection:
        assert connection.socket.subprotocol == "headwater.v1"
    with opened(server, subprotocols=["headwater.v9"]) as connection:
        assert connection.close_code() == 4509
    with live(server, subprotocols=None) as connection:
        assert connection.socket.subprotocol is None
        assert connection.answers_ping()


@pytest.mark.parametrize("name", ["token", "access_token", "api_key"])
def test_token_in_the_address(server: Server, alice: User, name: str) -> None:
    """Is refused even though it is valid: addresses end up in logs."""
    with opened(server, query=f"?{name}={alice.token}") as connection:
        assert connection.close_code() == 4501


def test_token_that_is_not_valid(server: Server, alice: User) -> None:
    """In the header or in `auth`: 4501."""
    for token in ("nonsense", short_lived(alice, -10)):
        with opened(server, token) as connection:
            assert connection.close_code() == 4501
        with live(server) as connection:
            connection.send(type="auth", token=token)
            assert connection.close_code() == 4501


def test_welcome(server: Server, alice: User) -> None:
    """The first frame names the protocol and the connection."""
    with opened(server, alice.token) as connection:
        frame = connection.receive()
        assert frame == {
            "type": "welcome",
            "protocol": "headwater.v1",
            "connection": frame["connection"],
            "heartbeat_seconds": 25,
        }


def test_signing_in_on_an_open_connection(server: Server, alice: User, draft: dict[str, Any]) -> None:
    """From anonymous to a user: views whose rights change are reset and then show what the user may read."""
    with live(server) as connection:
        view = connection.subscribe("1", filter={"title": draft["title"]})
        connection.send(type="auth", token=alice.token)
        frame = connection.receive()
        assert frame["type"] == "authenticated"
        assert frame["user"] == {"id": alice.id, "username": "alice", "roles": ["user"]}
        assert dt.datetime.fromisoformat(frame["expires_at"]) > dt.datetime.now(dt.UTC)
        frames = connection.receive_until("ready")
        assert {"type": "reset", "view": view, "reason": "access_changed"} in frames
        items = [item["document"]["id"] for f in frames if f["type"] == "snapshot" for item in f["items"]]
        assert items == [draft["id"]]
        # The same user again renews the token and resets nothing.
        connection.send(type="auth", token=server.login("alice"))
        assert connection.receive()["type"] == "authenticated"
        assert connection.answers_ping()


def test_signing_in_as_another_user(server: Server, alice: User, bob: User) -> None:
    """Closes the socket: what one user sees must not reach another."""
    with live(server, alice.token) as connection:
        connection.send(type="auth", token=bob.token)
        assert connection.close_code() == 4501


def test_token_that_expires(server: Server, alice: User) -> None:
    """The warning comes first, then 4001."""
    with live(server, short_lived(alice, 2)) as connection:
        frame = connection.receive()
        assert frame["type"] == "auth_expiring"
        assert 0 <= frame["seconds"] <= 2
        assert connection.close_code() == 4001


def test_token_that_is_renewed(server: Server, alice: User) -> None:
    """A new token on the live socket keeps its views: the old one's end passes unnoticed."""
    with live(server, short_lived(alice, 4)) as connection:
        assert connection.receive()["type"] == "auth_expiring"
        connection.subscribe("1", filter={"title": "nothing"})
        renewed = short_lived(alice, 7)
        connection.send(type="auth", token=renewed)
        assert [connection.receive()["type"] for _ in range(2)] == ["authenticated", "auth_expiring"]
        assert connection.close_code() == 4001
        assert time.time() > jwt.decode(renewed, options={"verify_signature": False})["exp"] - 1


def test_session_that_ends(server: Server, mongo: Mongo) -> None:
    """Deleted in the database: the socket closes with 4503 within a second."""
    token = server.login("alice")
    with live(server, token) as connection:
        session = jwt.decode(token, options={"verify_signature": False})["sid"]
        with promptly():
            mongo["sessions"].delete_one({"_id": ObjectId(session)})
            assert connection.close_code() == 4503


@pytest.mark.parametrize(
    ("text", "code", "id", "place"),
    [
        ("", "bad_message", None, "message"),
        ("{", "bad_message", None, "message"),
        ("[]", "bad_message", None, "message"),
        ("null", "bad_message", None, "message"),
        ('"a"', "bad_message", None, "message"),
        ("[" * 60_000, "bad_message", None, "message"),
        ('{"a":' * 10_000, "bad_message", None, "message"),
        ("{}", "bad_message", None, "message"),
        ('{"type":"nope","id":"9"}', "bad_message", "9", "message"),
        ('{"type":7}', "bad_message", None, "message"),
        ('{"type":"subscribe","id":"1"}', "bad_message", "1", "resource"),
        ('{"type":"subscribe","id":7,"resource":"posts"}', "bad_message", None, "id"),
        ('{"type":"subscribe","id":"","resource":"posts"}', "bad_message", "", "id"),
        ('{"type":"subscribe","id":"1","resource":"posts","nope":1}', "bad_message", "1", "nope"),
        ('{"type":"subscribe","id":"1","resource":"posts","limit":0}', "bad_message", "1", "limit"),
        ('{"type":"subscribe","id":"1","resource":"posts","limit":"5"}', "bad_message", "1", "limit"),
        ('{"type":"subscribe","id":"1","resource":"posts","limit":10001}', "bad_query", "1", "limit"),
        ('{"type":"subscribe","id":"1","resource":"posts","filter":[]}', "bad_message", "1", "filter"),
        ('{"type":"subscribe","id":"1","resource":"posts","filter":{"nope":1}}', "bad_query", "1", "filter.nope"),
        (
            '{"type":"subscribe","id":"1","resource":"posts","filter":{"title":{"$where":"1"}}}',
            *("bad_query", "1", "filter.title.$where"),
        ),
        ('{"type":"subscribe","id":"1","resource":"posts","sort":["nope"]}', "bad_query", "1", "sort"),
        ('{"type":"subscribe","id":"1","resource":"posts","fields":["nope"]}', "bad_query", "1", "fields"),
        ('{"type":"subscribe","id":"1","resource":"posts","fields":[]}', "bad_message", "1", "fields"),
        ('{"type":"subscribe","id":"1","resource":"posts","since":{"view":"v"}}', "bad_message", "1", "since.position"),
        ('{"type":"subscribe","id":"1","resource":"nope"}', "unknown_resource", "1", "resource"),
        ('{"type":"unsubscribe","id":"1"}', "unknown_subscription", "1", "there is no subscription"),
        ('{"type":"ping"}', "bad_message", None, "id"),
        ('{"type":"ping","id":"1","position":"x"}', "bad_position", "1", "position"),
        ('{"type":"auth"}', "bad_message", None, "message: either `token` or `api_key`"),
        ('{"type":"auth","token":"a","api_key":"b"}', "bad_message", None, "message: either `token` or `api_key`"),
        ('{"type":"auth","token":"a","api_key":""}', "bad_message", None, "api_key"),
        ('{"type":"auth","token":null}', "bad_message", None, "token"),
        ('{"type":"auth","api_key":{"$ne":""}}', "bad_message", None, "api_key"),
        ('{"type":"auth","api_key":["hw_a"]}', "bad_message", None, "api_key"),
        ('{"type":"auth","api_key":null}', "bad_message", None, "api_key"),
        ('{"type":"auth","ticket":"a"}', "bad_message", None, "ticket"),
    ],
)
def test_message_that_is_not_accepted(server: Server, text: str, code: str, id: str | None, place: str) -> None:
    """Is answered with an error frame that names the place; the connection goes on."""
    with live(server) as connection:
        connection.socket.send(text)
        frame = connection.receive()
        assert (frame["type"], frame["code"]) == ("error", code), frame
        assert frame.get("id") == id
        assert frame["message"].startswith(place), frame
        assert connection.answers_ping()


def test_frames_that_close_the_connection(server: Server, witness: Any) -> None:
    """Binary and oversized frames: 4500, or the protocol's own 1009 far beyond; nobody else is disturbed."""
    for payload, codes in (
        (b"{}", {4500}),
        ("x" * (64 * 1024 + 1), {4500}),
        ("x" * 1_000_000, {4500}),
        ("x" * 2_000_000, {1009}),
    ):
        with live(server) as connection:
            connection.socket.send(payload)
            assert connection.close_code() in codes
        witness()


def test_frame_of_the_largest_size(server: Server) -> None:
    """64 KiB are read."""
    with live(server) as connection:
        message = json.dumps({"type": "ping", "id": "1"})
        connection.socket.send(message + " " * (64 * 1024 - len(message)))
        assert connection.receive() == {"type": "pong", "id": "1"}


def test_too_many_messages(server: Server, witness: Any) -> None:
    """A burst of 150 is answered; a flood closes with 4029, after which a client may return."""
    with live(server) as connection:
        for number in range(150):
            connection.send(type="ping", id=str(number))
        assert [connection.receive()["id"] for _ in range(150)] == [str(number) for number in range(150)]
    # Without a bound on what is received, so that the client sees the end while it still writes.
    with live(server, max_queue=None) as connection:
        # The server may close before all of them are written.
        with contextlib.suppress(ConnectionClosedError):
            for number in range(400):
                connection.socket.send(json.dumps({"type": "ping", "id": str(number)}))
        assert connection.close_code() == 4029
    witness()


def test_subscriptions_past_the_limit(server: Server) -> None:
    """The hundred and first is refused; after one has ended, another one may begin."""
    with live(server) as connection:
        for number in range(101):
            connection.send(
                type="subscribe", id=str(number), resource="posts", snapshot=False, filter={"title": f"none {number}"}
            )
        errors: list[dict[str, Any]] = []
        ready = 0
        while ready < 100 or not errors:
            frame = connection.receive()
            ready += frame["type"] == "ready"
            errors += [frame] if frame["type"] == "error" else []
        assert [(error["id"], error["code"]) for error in errors] == [("100", "too_many_subscriptions")]
        connection.send(type="unsubscribe", id="7")
        assert connection.receive() == {"type": "unsubscribed", "id": "7", "reason": "requested"}
        connection.subscribe("again", filter={"title": "none again"})


def test_subscribing_twice(server: Server) -> None:
    """The same id, and another id for a view that the connection has, are both refused; the error names the first."""
    with live(server) as connection:
        connection.subscribe("1", filter={"title": "none"})
        connection.send(type="subscribe", id="1", resource="comments")
        assert connection.receive()["code"] == "duplicate_id"
        connection.send(type="subscribe", id="2", resource="posts", filter={"title": {"$eq": "none"}})
        frame = connection.receive()
        assert frame["code"] == "already_subscribed"
        assert "subscription 1 " in frame["message"]
        assert connection.answers_ping()


def test_ping_with_a_position(server: Server, alice: User, title: str) -> None:
    """The pong comes after the events of the write that the position is from."""
    with live(server, alice.token) as connection:
        connection.subscribe("1", filter={"title": title})
        for number in range(5):
            made = alice.client.post("/posts", json={"title": title})
            connection.send(type="ping", id=str(number), position=made.headers["x-position"])
            frames: list[dict[str, Any]] = connection.receive_until("pong")
            assert [frame.get("op") or frame["id"] for frame in frames] == ["create", str(number)]
            assert frames[0]["id"] == made.json()["id"]


def test_position_of_another_database(server: Server) -> None:
    """As `since`: a reset and a fresh snapshot, and no error."""
    with live(server) as connection:
        since = {"view": "v123", "position": "0" * 40}
        connection.send(type="subscribe", id="1", resource="posts", filter={"title": "none"}, since=since)
        frames = connection.receive_until("ready")
        assert [frame["type"] for frame in frames] == ["subscribed", "reset", "snapshot", "ready"]
        assert frames[0]["recovered"] is False
        assert frames[1] == {"type": "reset", "view": "v123", "reason": "history_lost"}
