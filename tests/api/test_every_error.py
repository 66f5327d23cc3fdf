"""Each error of docs/errors.md, provoked by a client."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import http.client
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from documents import EmbeddedDatabase
from tests.api.conftest import Starter
from tests.api.servers import ADMIN_EMAIL, ROOT, Server, User, serving
from tests.api.test_errors import problem

#: A class with a fault that nobody has thought of; and a minute without a part of the body is over sooner.
MODULE = '''
from typing import Annotated
import api.stalls
from documents import Access, LiveDocument, Resource, SetOnCreate, signed_in

api.stalls.PART_SECONDS = 2.0

def stamped(principal):
    raise RuntimeError("a fault in somebody's own code")

class Fragile(LiveDocument):
    """Cannot be created."""
    name: str
    stamp: Annotated[str, SetOnCreate(stamped)]
    class Settings:
        name = "fragiles"
    resource = Resource(access=Access(read=signed_in, create=signed_in))

class Charter(LiveDocument):
    """Changed by those who have read it."""
    text: str
    class Settings:
        name = "charters"
    resource = Resource(
        access=Access(read=signed_in, create=signed_in, update=signed_in, delete=signed_in), conditional=True
    )
'''


@dataclass
class World:
    """A server with a database of its own, and those who use it."""

    runner: asyncio.Runner
    database: EmbeddedDatabase
    server: Server
    alice: User
    bob: User
    admin: httpx.Client
    mongo: Database[dict[str, Any]]

    def post(self, **more: Any) -> str:
        """The address of a new, published post of alice's."""
        answer = self.alice.client.post("/posts", json={"title": "A post", "status": "published"} | more)
        assert answer.status_code == 201, answer.text
        return f"/posts/{answer.json()['id']}"

    def with_key(self, key: str) -> httpx.Response:
        """Create a post under a key."""
        return self.alice.client.post("/posts", json={"title": key}, headers={"Idempotency-Key": key})


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, server_settings: Starter, free_port: Callable[[], int]
) -> Iterator[World]:
    """The last test takes its database away."""
    directory = tmp_path_factory.mktemp("errors")
    (directory / "fragile_models.py").write_text(MODULE)
    with asyncio.Runner() as runner:
        database = EmbeddedDatabase(directory / "data", free_port(), durable=False)
        url = runner.run(database.start())
        settings = server_settings(
            mongodb_url=url,
            documents="documents.models,fragile_models",
            max_body_bytes="1024",
            login_rate_limit="3/hour",
        )
        client: MongoClient[dict[str, Any]] = MongoClient(url, tz_aware=True)
        try:
            with serving(directory, free_port(), settings, directory) as server:
                alice, bob = server.register("alice"), server.register("bob")
                admin = server.client(server.login(ADMIN_EMAIL))
                mongo = client[settings["HEADWATER_DATABASE"]]
                yield World(runner, database, server, alice, bob, admin, mongo)
        finally:
            client.close()
            runner.run(database.stop())


def last_admin(world: World) -> httpx.Response:
    """Take the admin's role away."""
    (admin,) = world.mongo["users"].find({"roles": "admin"})
    return world.admin.patch(f"/users/{admin['_id']}", json={"roles": ["user"]})


def taken_slug(world: World) -> httpx.Response:
    """Create two posts of one address."""
    world.post(slug="taken")
    return world.alice.client.post("/posts", json={"title": "Another", "slug": "taken"})


def key_in_use(world: World) -> httpx.Response:
    """Repeat a request that has not been answered yet."""
    made = world.with_key("in-use")
    claim = {"document_id": ObjectId(made.json()["id"])}
    world.mongo["headwater_idempotency"].update_one(
        claim, {"$set": {"state": "running", "claimed_at": dt.datetime.now(dt.UTC)}}
    )
    return world.with_key("in-use")


def interrupted(world: World) -> httpx.Response:
    """Repeat a request whose worker died, and that may have been carried out."""
    url, headers = f"{world.post()}/moderate", {"Idempotency-Key": "interrupted"}
    body = {"status": "hidden", "reason": "Off topic."}
    assert world.admin.post(url, json=body, headers=headers).status_code == 200
    past = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=2)
    claims = world.mongo["headwater_idempotency"]
    (claim,) = claims.find({"answer.shows.collection": "posts"})
    claims.update_one({"_id": claim["_id"]}, {"$set": {"state": "running", "claimed_at": past}})
    return world.admin.post(url, json=body, headers=headers)


def answer_gone(world: World) -> httpx.Response:
    """Repeat a request whose document was deleted."""
    made = world.with_key("gone")
    assert world.alice.client.delete(f"/posts/{made.json()['id']}").status_code == 204
    return world.with_key("gone")


def guessing(world: World) -> httpx.Response:
    """Try wrong passwords until it is enough."""
    body = {"username": "nobody", "password": "a wrong one"}
    answers = [world.server.client().post("/auth/login", json=body) for _ in range(10)]
    return answers[-1]


def unconditional(world: World) -> httpx.Response:
    """A change, a bulk write, a change by filter and a deletion of a document whose class wants a condition."""
    client = world.alice.client
    made = client.post("/charters", json={"text": "a"})
    path, tag = f"/charters/{made.json()['id']}", made.headers["ETag"]
    bulk = client.post("/charters/bulk", json={"operations": [{"op": "delete", "id": made.json()["id"]}]})
    assert [result["status"] for result in bulk.json()["results"]] == [428]
    for answer in (client.patch("/charters?text=a", json={"text": "b"}), client.delete(path)):
        problem(answer, 428, "precondition_required")
    changed = client.patch(path, json={"text": "b"}, headers={"If-Match": tag})
    assert changed.status_code == 200
    return client.patch(path, json={"text": "c"})


def half_a_body(world: World) -> httpx.Response:
    """Send half of a body, and wait. The server closes the connection."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", world.server.port, timeout=30)) as connection:
        connection.putrequest("POST", "/api/v1/posts")
        for name, value in (("Content-Type", "application/json"), ("Content-Length", "100")):
            connection.putheader(name, value)
        connection.putheader("Authorization", f"Bearer {world.alice.token}")
        connection.endheaders(b'{"title": ')
        answer = connection.getresponse()
        content = answer.read()
        assert connection.sock is None
        return httpx.Response(answer.status, headers=answer.getheaders(), content=content)


def beyond_the_end(world: World) -> httpx.Response:
    """A range that begins behind a file's last byte."""
    answer = world.alice.client.post("/files", files={"files": ("a.txt", b"water")})
    path = f"/files/{answer.json()['items'][0]['id']}/content"
    return world.alice.client.get(path, headers={"Range": "bytes=5-"})


def without_database(world: World) -> httpx.Response:
    """Read while the database is away. The world ends here."""
    # Its end would look for the database for half a minute.
    world.mongo.client.close()
    world.runner.run(world.database.stop())
    return world.alice.client.get("/posts")


REQUESTS: dict[tuple[int, str], Callable[[World], httpx.Response]] = {
    (400, "bad_request"): lambda world: world.alice.client.post(
        "/posts", content=b"{", headers={"Content-Type": "application/json"}
    ),
    (401, "unauthorized"): lambda world: world.server.client().post("/posts", json={"title": "x"}),
    (403, "forbidden"): lambda world: world.bob.client.delete(world.post()),
    (404, "not_found"): lambda world: world.bob.client.get(world.post(status="draft")),
    (405, "method_not_allowed"): lambda world: world.alice.client.put("/posts", json={}),
    (406, "not_acceptable"): lambda world: world.alice.client.get("/posts", headers={"Accept": "image/png"}),
    (408, "request_timeout"): half_a_body,
    (409, "conflict"): last_admin,
    (409, "duplicate"): taken_slug,
    (409, "in_progress"): key_in_use,
    (409, "interrupted"): interrupted,
    (409, "answer_gone"): answer_gone,
    (412, "precondition_failed"): lambda world: world.alice.client.delete(world.post(), headers={"If-Match": '"x"'}),
    (413, "content_too_large"): lambda world: world.alice.client.post("/posts", json={"title": "x" * 2_000}),
    (415, "unsupported_media_type"): lambda world: world.alice.client.post("/posts", data={"title": "x"}),
    (416, "range_not_satisfiable"): beyond_the_end,
    (422, "invalid"): lambda world: world.alice.client.post("/posts", json={"title": ""}),
    (428, "precondition_required"): unconditional,
    (429, "too_many_requests"): guessing,
    (500, "internal_error"): lambda world: world.alice.client.post("/fragiles", json={"name": "x"}),
    (503, "unavailable"): without_database,
}


@pytest.mark.parametrize(("status", "code"), REQUESTS)
def test_error(world: World, status: int, code: str) -> None:
    """The request of the table is answered with it, and with the headers that belong to it."""
    answer = REQUESTS[status, code](world)
    problem(answer, status, code)
    expected = {
        401: "www-authenticate",
        405: "allow",
        408: "connection",
        415: "accept",
        429: "retry-after",
        503: "retry-after",
    }
    if status in expected:
        assert answer.headers[expected[status]]


def test_table_is_complete() -> None:
    """It has each error that is documented."""
    text = (ROOT / "docs" / "errors.md").read_text()
    documented = {(int(status), code) for status, code in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE)}
    assert documented == set(REQUESTS)
