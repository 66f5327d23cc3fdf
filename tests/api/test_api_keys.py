"""API keys over HTTP: who makes them, what they are good for, and what they are never good for."""

from __future__ import annotations

import datetime as dt
import socket
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import PASSWORD, Server, User, live, wait_until
from tests.api.test_accounts import registration
from tests.api.test_errors import SOME_ID, places, problem
from tests.waiting import promptly

Mongo = Database[dict[str, Any]]


@dataclass(frozen=True)
class Key:
    """A key of somebody's, and a client that sends it."""

    id: str
    text: str
    client: httpx.Client


def key_of(server: Server, user: User, *scopes: str, **more: Any) -> Key:
    """A new key of the user's."""
    body = {"name": "a program", "scopes": list(scopes)} | more
    answer = user.client.post("/api-keys", json=body)
    assert answer.status_code == 201, answer.text
    content = answer.json()
    return Key(content["id"], content["key"], server.client(key=content["key"]))


def soon(seconds: float) -> str:
    """A time from now, as the API takes it."""
    return (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def member(server: Server) -> User:
    """A new user."""
    return server.register(registration()["username"])


def test_keys_of_nobody(anonymous: httpx.Client) -> None:
    """401 at each address for somebody who is not signed in."""
    for method, url in (("POST", "/api-keys"), ("GET", "/api-keys"), ("GET", f"/api-keys/{SOME_ID}")):
        problem(anonymous.request(method, url, json={} if method == "POST" else None), 401, "unauthorized")
    problem(anonymous.delete(f"/api-keys/{SOME_ID}"), 401, "unauthorized")


def test_keys_of_others(server: Server, alice: User, bob: User) -> None:
    """Are not there: not to read, to list or to delete; and they go on."""
    key = key_of(server, alice, "posts:read")
    problem(bob.client.get(f"/api-keys/{key.id}"), 404, "not_found")
    problem(bob.client.delete(f"/api-keys/{key.id}"), 404, "not_found")
    assert key.id not in bob.client.get("/api-keys?limit=100").text
    assert key.client.get("/posts?limit=1").status_code == 200
    admin = server.client(server.login("admin"))
    assert admin.get(f"/api-keys/{key.id}").json()["user_id"] == alice.id
    assert key.id in admin.get("/api-keys", params={"filter": f'{{"user_id":"{alice.id}"}}', "limit": 100}).text
    assert admin.delete(f"/api-keys/{key.id}").status_code == 204
    wait_until(lambda: key.client.get("/posts").status_code == 401)


def test_key_that_is_shown_once(server: Server, alice: User, mongo: Mongo) -> None:
    """Its hash is neither shown nor found by a filter or an order, and the database holds no more than that."""
    key = key_of(server, alice, "posts:read", "comments:write", expires_at=soon(3_600))
    answer = alice.client.get(f"/api-keys/{key.id}")
    shown = answer.json()
    assert (shown["name"], shown["scopes"]) == ("a program", ["comments:write", "posts:read"])
    assert {"key", "key_hash"}.isdisjoint(shown)
    stored = mongo["api_keys"].find_one({"_id": ObjectId(key.id)})
    assert stored is not None
    assert key.text[3:] not in str(stored)
    assert stored["key_hash"] not in alice.client.get("/api-keys?limit=100").text
    for query in ("sort=key_hash", "fields=key_hash", 'filter={"key_hash":{"$gt":""}}', "key_hash[startswith]=0"):
        assert places(alice.client.get(f"/api-keys?{query}"))[0][:1] == ["query"]


def test_answer_that_shows_the_key(alice: User) -> None:
    """Nobody on the way stores it; the place of the key's document is named."""
    answer = alice.client.post("/api-keys", json={"name": "n", "scopes": ["posts:read"]})
    content = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["location"] == f"/api/v1/api-keys/{content['id']}"
    assert alice.client.get(f"/api-keys/{content['id']}").json() == {n: v for n, v in content.items() if n != "key"}
    for body, place in (
        ({"name": "n", "scopes": ["posts:read", "nope:read"]}, ["body", "scopes", 1]),
        ({"name": "n", "scopes": ["posts:read"], "expires_at": soon(-1)}, ["body", "expires_at"]),
        ({"name": "n", "scopes": ["posts:read"], "key": "hw_mine"}, ["body", "key"]),
    ):
        assert places(alice.client.post("/api-keys", json=body)) == [place]


@pytest.mark.parametrize("key", ["", "hw_", "hw_" + "A" * 96, "\xff\xfe", "é" * 50, "x" * 4_000, '{"$ne":""}', "null"])
def test_text_that_is_no_key(server: Server, key: str) -> None:
    """401, and never an anonymous answer instead."""
    for url in ("/posts", f"/posts/{SOME_ID}", "/users/me"):
        problem(server.client(key=key.encode("latin-1")).get(url), 401, "unauthorized")


def test_key_in_another_place(server: Server, alice: User, anonymous: httpx.Client) -> None:
    """As a bearer token or in the query string it is refused; so is a token in its place, or both, or two."""
    key = key_of(server, alice, "posts:read").text
    problem(server.client(key).get("/posts"), 401, "unauthorized")
    problem(server.client(key=alice.token).get("/posts"), 401, "unauthorized")
    for name in ("api_key", "token", "access_token", "ticket", "api_key[$ne]", "ticket[$ne]"):
        for value in (key, alice.token, ""):
            for url, accept in (("/posts", "*/*"), ("/posts", "text/event-stream"), (f"/posts/{SOME_ID}", "*/*")):
                answer = anonymous.get(url, params={name: value}, headers={"Accept": accept})
                problem(answer, 401, "unauthorized")
                assert not value or value not in answer.text
    problem(alice.client.get("/posts", headers={"X-API-Key": key}), 401, "unauthorized")
    problem(anonymous.get("/posts", headers=[("X-API-Key", key), ("X-API-Key", key)]), 401, "unauthorized")


ACCOUNT_ROUTES = [
    ("GET", "/users/me"),
    ("PATCH", "/users/me"),
    ("POST", "/users/me/password"),
    ("POST", "/api-keys"),
    ("GET", "/api-keys"),
    ("HEAD", "/api-keys"),
    ("GET", f"/api-keys/{SOME_ID}"),
    ("DELETE", f"/api-keys/{SOME_ID}"),
    ("PATCH", f"/users/{SOME_ID}"),
    ("DELETE", f"/users/{SOME_ID}"),
    ("POST", "/auth/register"),
    ("POST", "/auth/login"),
    ("POST", "/auth/refresh"),
    ("POST", "/auth/logout"),
    ("POST", "/auth/password/forgot"),
    ("POST", "/auth/password/reset"),
]


def test_accounts_keys_and_passwords(server: Server, alice: User) -> None:
    """A key with every scope is good for none of their addresses, not even an admin's, and changes nothing."""
    admin = server.client(server.login("admin"))
    scopes = ["users:read", *(f"{name}:write" for name in ("posts", "comments", "files"))]
    for client in (alice.client, admin):
        answer = client.post("/api-keys", json={"name": "n", "scopes": scopes})
        keyed = server.client(key=answer.json()["key"])
        for method, url in ACCOUNT_ROUTES:
            body = None if method in ("GET", "HEAD", "DELETE") else {"username": "alice", "password": PASSWORD}
            refused = keyed.request(method, url, json=body)
            assert refused.status_code == 403, (method, url)
            if method != "HEAD":
                assert "API key" in problem(refused, 403, "forbidden")["detail"]
        own = {"user_id": answer.json()["user_id"], "name": "n"}
        problem(keyed.delete(f"/api-keys/{answer.json()['id']}"), 403, "forbidden")
        assert client.get("/api-keys", params={**own, "limit": 100}).json()["items"]


def test_key_made_under_an_idempotency_key(alice: User) -> None:
    """Is refused, and nothing is made: the answer would have to be kept, and it shows a secret."""
    before = alice.client.get("/api-keys", params={"limit": 100}).json()["items"]
    body = {"name": "n", "scopes": ["posts:read"]}
    answer = alice.client.post("/api-keys", json=body, headers={"Idempotency-Key": "once"})
    assert places(answer) == [["header", "Idempotency-Key"]]
    assert alice.client.get("/api-keys", params={"limit": 100}).json()["items"] == before


def test_scopes_of_each_operation(server: Server, alice: User, draft: dict[str, Any]) -> None:
    """Reading with either scope, writing with `write` alone; without any nothing is there."""
    url, live_url = f"/posts/{draft['id']}", f"/posts?title={draft['title']}"
    reader, writer, other = (key_of(server, alice, scope).client for scope in (
        "posts:read", "posts:write", "comments:write"
    ))  # fmt: skip

    def outcomes(client: httpx.Client) -> list[int]:
        return [
            client.get(url).status_code,
            client.post("/posts", json={"title": draft["title"] + "!"}).status_code,
            client.patch(url, json={"body": "changed"}).status_code,
            client.put(url, json={"title": draft["title"]}).status_code,
            client.put(f"/posts/{ObjectId()}", json={"title": "new"}, headers={"If-None-Match": "*"}).status_code,
            client.delete(url).status_code,
        ]

    assert outcomes(other) == [404, 403, 404, 404, 403, 404]
    assert outcomes(reader) == [200, 403, 403, 403, 403, 403]
    assert [len(client.get(live_url).json()["items"]) for client in (other, reader, writer)] == [0, 1, 1]
    assert other.get("/posts?page=1").json()["total"] == 0
    assert other.get("/users").json()["items"] == []
    assert outcomes(writer) == [200, 201, 200, 200, 201, 204]


def test_key_whose_owner_changes(server: Server, mongo: Mongo, draft: dict[str, Any]) -> None:
    """Roles of the owner count within the scopes; a deactivated owner's key is refused, a deleted owner's is gone."""
    user = member(server)
    key = key_of(server, user, "posts:read")
    url = f"/posts/{draft['id']}"
    problem(key.client.get(url), 404, "not_found")
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"roles": ["user", "moderator"]}})
    wait_until(lambda: key.client.get(url).status_code == 200)
    problem(key.client.patch(url, json={"status": "hidden"}), 403, "forbidden")
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"is_active": False}})
    wait_until(lambda: key.client.get("/posts").status_code == 401)
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"is_active": True}})
    wait_until(lambda: key.client.get("/posts").status_code == 200)
    admin = server.client(server.login("admin"))
    assert admin.delete(f"/users/{user.id}").status_code == 204
    wait_until(lambda: key.client.get("/posts").status_code == 401)
    assert mongo["api_keys"].find_one({"_id": ObjectId(key.id)}) is None


def test_key_that_expires(server: Server, alice: User) -> None:
    """Is refused from its end on, although it was looked up before."""
    key = key_of(server, alice, "posts:read", expires_at=soon(1.5))
    assert key.client.get("/posts").status_code == 200
    wait_until(lambda: key.client.get("/posts").status_code == 401)
    assert "expired" in problem(key.client.get("/posts"), 401, "unauthorized")["detail"]
    assert alice.client.get(f"/api-keys/{key.id}").status_code == 200


def test_bytes_in_the_header(server: Server) -> None:
    """Whatever stands there is no error of the server."""
    for value in (b"\x80\xff", b"hw_\xc3\xa9", b"\t", b"hw_" + b"/" * 96):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            head = b"GET /api/v1/posts HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: "
            connection.sendall(head + value + b"\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")


def test_key_that_is_deleted(server: Server, alice: User) -> None:
    """Its sockets close with 4503 and its streams end, with the reason, within a second; the owner's own stay."""
    key, other = key_of(server, alice, "posts:read"), key_of(server, alice, "posts:read")
    stream = key.client.stream("GET", "/posts?title=none&snapshot=false", headers={"Accept": "text/event-stream"})
    with live(server, key=key.text) as socket_, live(server, key=other.text) as beside, stream as response:
        lines = response.iter_lines()
        assert next(lines).startswith("id: ")
        socket_.subscribe("1")
        with promptly():
            assert alice.client.delete(f"/api-keys/{key.id}").status_code == 204
            assert socket_.close_code() == 4503
            assert '"code":"forbidden"' in "".join(lines)
        assert beside.answers_ping()
    wait_until(lambda: key.client.get("/posts").status_code == 401)
    problem(alice.client.delete(f"/api-keys/{key.id}"), 404, "not_found")
    with live(server) as late:
        late.send(type="auth", api_key=key.text)
        assert late.close_code() == 4501
