"""API keys on the WebSocket: signing in, renewing, narrowing, and what ends them."""

from __future__ import annotations

from typing import Any

from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import Server, User, live, opened
from tests.api.test_api_keys import key_of, member, soon
from tests.waiting import promptly

Mongo = Database[dict[str, Any]]


def test_key_that_is_not_valid(server: Server, alice: User) -> None:
    """In the header, with a token beside it, or in `auth`: 4501."""
    with opened(server, key="hw_" + "A" * 96) as connection:
        assert connection.close_code() == 4501
    with opened(server, alice.token, key=key_of(server, alice, "posts:read").text) as connection:
        assert connection.close_code() == 4501
    with live(server) as connection:
        connection.send(type="auth", api_key="hw_" + "A" * 96)
        assert connection.close_code() == 4501


def test_key_of_another_user(server: Server, alice: User, bob: User) -> None:
    """Closes the socket, whichever of the two holds the key."""
    with live(server, alice.token) as connection:
        connection.send(type="auth", api_key=key_of(server, bob, "posts:read").text)
        assert connection.close_code() == 4501
    with live(server, key=key_of(server, bob, "posts:read").text) as connection:
        connection.send(type="auth", token=alice.token)
        assert connection.close_code() == 4501


def test_handshake_with_a_key(server: Server, alice: User, draft: dict[str, Any]) -> None:
    """The connection sees what the scopes reach, and nothing else, without an error."""
    with live(server, key=key_of(server, alice, "posts:read").text) as connection:
        connection.send(type="subscribe", id="1", resource="posts", filter={"title": draft["title"]})
        frames = connection.receive_until("ready")
        assert [item["document"]["id"] for item in frames[1]["items"]] == [draft["id"]]
        for resource in ("users", "comments", "sessions", "api_keys"):
            connection.send(type="subscribe", id=resource, resource=resource)
            assert connection.receive_until("ready")[1]["items"] == []


def test_narrowing_and_widening_an_open_connection(server: Server, alice: User, draft: dict[str, Any]) -> None:
    """Each `auth` resets the views whose rights change, and only those."""
    keys = {scope: key_of(server, alice, scope).text for scope in ("posts:read", "posts:write", "comments:read")}
    with live(server, alice.token) as connection:
        view = connection.subscribe("1", filter={"title": draft["title"]})

        def authenticated(**how: str) -> dict[str, Any]:
            connection.send(type="auth", **how)
            frame = connection.receive()
            assert frame["type"] == "authenticated"
            assert frame["user"]["id"] == alice.id
            return frame

        assert authenticated(api_key=keys["posts:read"])["expires_at"] is None
        assert authenticated(api_key=keys["posts:write"])["expires_at"] is None
        assert connection.answers_ping(), "the same view: to write includes to read"
        authenticated(api_key=keys["comments:read"])
        reset, snapshot, ready = connection.receive_until("ready")
        assert (reset["type"], reset["view"], reset["reason"]) == ("reset", view, "access_changed")
        assert snapshot["items"] == []
        assert ready["view"] != view
        alice.client.patch(f"/posts/{draft['id']}", json={"body": "unseen"})
        assert authenticated(token=alice.token)["expires_at"] is not None
        reset, snapshot, ready = connection.receive_until("ready")
        assert reset["reason"] == "access_changed"
        assert [item["document"]["body"] for item in snapshot["items"]] == ["unseen"]
        assert ready["view"] == view


def test_key_that_expires_while_it_is_used(server: Server, alice: User) -> None:
    """The warning, then 4001; a key without an end replaces it and its timer."""
    ending = key_of(server, alice, "posts:read", expires_at=soon(2)).text
    with live(server, key=ending) as first, live(server, key=ending) as second:
        second.send(type="auth", api_key=key_of(server, alice, "posts:read").text)
        assert {second.receive()["type"] for _ in range(2)} == {"auth_expiring", "authenticated"}
        assert first.receive()["type"] == "auth_expiring"
        assert first.close_code() == 4001
        assert second.answers_ping()


def test_owner_who_is_deactivated(server: Server, mongo: Mongo) -> None:
    """The key's socket closes with 4503 within a second."""
    user = member(server)
    with live(server, key=key_of(server, user, "posts:read").text) as connection, promptly():
        mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"is_active": False}})
        assert connection.close_code() == 4503


def test_key_that_is_edited_in_the_database(server: Server, alice: User, draft: dict[str, Any], mongo: Mongo) -> None:
    """Other scopes reset the views; an end closes at its time, another owner or hash at once."""
    key = key_of(server, alice, "comments:read")
    keys, name = mongo["api_keys"], {"_id": ObjectId(key.id)}
    with live(server, key=key.text) as connection:
        connection.subscribe("1", filter={"title": draft["title"]})
        keys.update_one(name, {"$set": {"scopes": ["posts:read"]}})
        frames = connection.receive_until("ready")
        assert frames[0]["reason"] == "access_changed"
        assert [item["document"]["id"] for item in frames[1]["items"]] == [draft["id"]]
        assert key.client.get(f"/posts/{draft['id']}").status_code == 200
        keys.update_one(name, {"$set": {"key_hash": "0" * 64}})
        assert connection.close_code() == 4503
    assert key.client.get("/posts").status_code == 401
