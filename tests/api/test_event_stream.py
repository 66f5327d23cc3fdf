"""Server-Sent Events on the list URL."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import Server, User, live, wait_until
from tests.api.test_errors import places, problem
from tests.api.test_websocket import short_lived

Mongo = Database[dict[str, Any]]
EVENTS = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    name: str
    id: str | None
    data: dict[str, Any]


class Stream:
    """Reads events as an EventSource does (WHATWG HTML, 9.2.6)."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def event(self) -> Event:
        """The next event that is not a heartbeat. StopIteration at the end of the stream."""
        fields: dict[str, str] = {}
        while line := next(self._lines):
            name, _, value = line.partition(": ")
            assert name in ("id", "event", "data"), line
            fields[name] = value
        if fields["event"] == "position":
            return self.event()
        return Event(fields["event"], fields.get("id"), json.loads(fields["data"]))


@contextlib.contextmanager
def streaming(client: httpx.Client, url: str, **headers: str) -> Iterator[Stream]:
    """An open event stream."""
    with client.stream("GET", url, headers=EVENTS | headers) as response:
        assert response.status_code == 200, response.read()
        yield Stream(response)


def test_stream_from_snapshot_to_delete(alice: User, anonymous: httpx.Client, title: str) -> None:
    """Snapshot, ready, then each change once and in order, every one with an id to resume from."""
    first = alice.client.post("/posts", json={"title": title, "status": "published"}).json()
    with streaming(anonymous, f"/posts?title={title}&status=published&fields=title") as stream:
        headers = stream.response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-cache, no-transform"
        assert headers["x-content-type-options"] == "nosniff"
        snapshot, ready = stream.event(), stream.event()
        assert (snapshot.name, snapshot.id) == ("snapshot", None)
        assert [item["document"] for item in snapshot.data["items"]] == [{"id": first["id"], "title": title}]
        assert ready.name == "ready"
        assert ready.id == f"{ready.data['view']}@{ready.data['position']}"
        made = alice.client.post("/posts", json={"title": title, "status": "published"}).json()
        url = f"/posts/{made['id']}"
        alice.client.patch(url, json={"status": "draft"})
        alice.client.patch(url, json={"status": "published"})
        alice.client.patch(url, json={"title": title, "body": "not in view"})
        alice.client.delete(url)
        events = [stream.event() for _ in range(4)]
        assert [event.name for event in events] == ["create", "leave", "enter", "delete"]
        assert [event.name for event in events] == [event.data["op"] for event in events]
        assert {event.data["id"] for event in events} == {made["id"]}
        assert all(event.id == f"{ready.data['view']}@{event.data['position']}" for event in events)
        assert [event.id for event in events] == sorted({event.id or "" for event in events})


@pytest.mark.parametrize("how", ["Last-Event-ID", "since"])
def test_resuming(server: Server, alice: User, anonymous: httpx.Client, title: str, how: str) -> None:
    """From an event's id: what was missed, then ready, and no snapshot."""
    url = f"/posts?title={title}"
    with streaming(anonymous, url) as stream:
        stream.event()
        left_at = stream.event().id
    assert left_at
    made = alice.client.post("/posts", json={"title": title, "status": "published"})
    missed = made.json()
    with live(server) as other:
        # Until the server itself has heard of it.
        other.send(type="ping", id="1", position=made.headers["x-position"])
        assert other.receive()["type"] == "pong"
    back = {"Last-Event-ID": left_at} if how == "Last-Event-ID" else {}
    with streaming(anonymous, url + ("" if back else f"&since={left_at}"), **back) as stream:
        first, second = stream.event(), stream.event()
        assert (first.name, first.data["id"]) == ("create", missed["id"])
        assert second.name == "ready"


@pytest.mark.parametrize("id", ["nonsense", "v123@0000", "@", "é"])
def test_resuming_from_nowhere(anonymous: httpx.Client, id: str) -> None:
    """An id that is not of this database: a reset and a fresh snapshot."""
    with anonymous.stream(
        "GET", "/posts?title=none", headers={b"Accept": b"text/event-stream", b"Last-Event-ID": id.encode("latin-1")}
    ) as response:
        stream = Stream(response)
        reset, snapshot, ready = (stream.event() for _ in range(3))
        assert (reset.name, snapshot.name, ready.name) == ("reset", "snapshot", "ready")
        # A browser that is cut off here must not come back with what it had before.
        assert (reset.id, snapshot.id) == ("@", None)


def test_resuming_after_a_reset(anonymous: httpx.Client, title: str) -> None:
    """Who was cut off between reset and ready begins anew, also where the address still names an older place."""
    url = f"/posts?title={title}"
    with streaming(anonymous, url) as stream:
        stream.event()
        older = stream.event().id
    with streaming(anonymous, f"{url}&since={older}", **{"Last-Event-ID": "@"}) as stream:
        assert [stream.event().name for _ in range(3)] == ["reset", "snapshot", "ready"]


def test_without_a_snapshot(anonymous: httpx.Client) -> None:
    """`snapshot=false` begins with ready."""
    with streaming(anonymous, "/posts?snapshot=false") as stream:
        assert stream.event().name == "ready"


@pytest.mark.parametrize(
    ("accept", "is_stream"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        ("text/event-stream, */*;q=0.1", True),
        ("application/json;q=0.5, text/event-stream", True),
        ("text/event-stream;q=0", False),
        ("application/json, text/event-stream", False),
        ("text/event-stream;q=0.5, application/json", False),
        ("text/event-streams", False),
        ("x-text/event-stream", False),
        ("text/*", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_what_is_asked_for(anonymous: httpx.Client, accept: str, is_stream: bool) -> None:
    """A stream only for those who name it, and prefer it to JSON."""
    with anonymous.stream("GET", "/posts?limit=1", headers={"Accept": accept}) as response:
        assert response.headers["content-type"].startswith("text/event-stream") is is_stream


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("snapshot=1", "snapshot"),
        ("page=1", "page"),
        ("page_size=5", "page_size"),
        ("count=exact", "count"),
        ("cursor=a", "cursor"),
        ("nope=1", "nope"),
        ("sort=nope", "sort"),
        ("filter={", "filter"),
    ],
)
def test_query_that_is_not_accepted(anonymous: httpx.Client, query: str, name: str) -> None:
    """Is answered before any stream begins."""
    assert places(anonymous.get(f"/posts?{query}", headers=EVENTS)) == [["query", name]]


def test_token_that_is_not_valid(server: Server) -> None:
    """401, and no stream for an anonymous caller instead."""
    answer = httpx.get(f"{server.url}/api/v1/posts", headers=EVENTS | {"Authorization": "Bearer nonsense"})
    problem(answer, 401, "unauthorized")


def test_what_the_caller_may_not_read(alice: User, bob: User, draft: dict[str, Any]) -> None:
    """Is in the author's stream only."""
    for user, expected in ((alice, [draft["id"]]), (bob, [])):
        with streaming(user.client, f"/posts?title={draft['title']}") as stream:
            assert [item["document"]["id"] for item in stream.event().data["items"]] == expected


def test_end_of_the_token(server: Server, alice: User) -> None:
    """The stream ends with it."""
    with streaming(server.client(short_lived(alice, 2)), "/posts?title=none&snapshot=false") as stream:
        assert stream.event().name == "ready"
        last = stream.event()
        assert (last.name, last.data["code"]) == ("problem", "token_expired")
        with pytest.raises(StopIteration):
            stream.event()


def test_end_of_the_session(server: Server, mongo: Mongo) -> None:
    """Deleted in the database, it ends the stream; the next attempt is a 401, which stops an EventSource."""
    token = server.login("alice")
    client = server.client(token)
    with streaming(client, "/posts?title=none&snapshot=false") as stream:
        assert stream.event().name == "ready"
        session = jwt.decode(token, options={"verify_signature": False})["sid"]
        mongo["sessions"].delete_one({"_id": ObjectId(session)})
        last = stream.event()
        assert (last.name, last.data["code"]) == ("problem", "forbidden")
        with pytest.raises(StopIteration):
            stream.event()
    problem(client.get("/posts", headers=EVENTS), 401, "unauthorized")


def test_role_that_is_granted(server: Server, mongo: Mongo, draft: dict[str, Any]) -> None:
    """The open stream is reset and then shows what the new rights give."""
    user = server.register(f"r{draft['id']}")
    with streaming(user.client, f"/posts?title={draft['title']}") as stream:
        assert stream.event().data["items"] == []
        assert stream.event().name == "ready"
        mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"roles": ["user", "moderator"]}})
        reset, snapshot = stream.event(), stream.event()
        assert (reset.name, reset.data["reason"], reset.id) == ("reset", "access_changed", "@")
        assert [item["document"]["id"] for item in snapshot.data["items"]] == [draft["id"]]


def test_role_that_is_taken_away(server: Server, mongo: Mongo, title: str) -> None:
    """A stream by a field that may no longer be seen says that it ends, and ends; else there would be silence."""
    user = server.register(f"a{title[-12:]}")
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"roles": ["user", "admin"]}})
    wait_until(lambda: "admin" in user.client.get("/users/me").json()["roles"])
    with streaming(user.client, "/users?email=nobody@example.org") as stream:
        assert [stream.event().name for _ in range(2)] == ["snapshot", "ready"]
        mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"roles": ["user"]}})
        reset, last = stream.event(), stream.event()
        assert (reset.name, reset.data["reason"]) == ("reset", "access_changed")
        assert (last.name, last.data["reason"]) == ("unsubscribed", "access_changed")
        with pytest.raises(StopIteration):
            stream.event()
    assert len(places(user.client.get("/users?email=nobody@example.org", headers=EVENTS))) == 1


def test_client_that_leaves(server: Server, alice: User, anonymous: httpx.Client, title: str) -> None:
    """Many that leave in the middle of everything neither disturb a neighbour nor leave an error in the log."""
    with live(server) as witness:
        witness.subscribe("w", filter={"title": title})
        for _ in range(10):
            with streaming(anonymous, f"/posts?title={title}"), streaming(alice.client, "/posts"):
                pass
        made = alice.client.post("/posts", json={"title": title, "status": "published"}).json()
        assert witness.receive()["id"] == made["id"]
