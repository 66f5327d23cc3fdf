"""`POST /posts/bulk`, as a client sees it: alone and all at once."""

from __future__ import annotations

import time
import uuid
from typing import Any

import httpx
import pytest
from pymongo.database import Database

from tests.api.servers import Server, User, live
from tests.api.test_errors import KEYS, SOME_ID, places, problem

Mongo = Database[dict[str, Any]]


def bulk(client: httpx.Client, *operations: dict[str, Any], atomic: bool = False) -> httpx.Response:
    """Send operations."""
    return client.post("/posts/bulk", json={"operations": list(operations), "atomic": atomic})


def statuses(answer: httpx.Response) -> list[int]:
    """The statuses of the results, in order."""
    return [result["status"] for result in answer.json()["results"]]


def test_anonymous(anonymous: httpx.Client, post: dict[str, Any], title: str) -> None:
    """Is asked to sign in, by each result or by the answer as a whole; nothing is written."""
    operations = [{"op": "create", "document": {"title": title}}, {"op": "delete", "id": post["id"]}]
    answer = bulk(anonymous, *operations)
    assert (answer.status_code, statuses(answer)) == (207, [401, 401])
    problem(bulk(anonymous, *operations, atomic=True), 401, "unauthorized")
    assert anonymous.get(f"/posts/{post['id']}").json() == post


def test_another_users_documents(bob: User, post: dict[str, Any], draft: dict[str, Any], mongo: Mongo) -> None:
    """Are refused, and their drafts are not there: the errors are those of an id that nothing has."""
    operations = [
        {"op": op, "id": id, **member}
        for op, member in (("delete", {}), ("update", {"patch": {}}), ("replace", {"document": {"title": "b"}}))
        for id in (post["id"], draft["id"], SOME_ID)
    ]
    answer = bulk(bob.client, *operations)
    assert statuses(answer) == [403, 404, 404] * 3
    for hidden, nothing in zip(answer.json()["results"][1::3], answer.json()["results"][2::3], strict=True):
        assert hidden["error"] == nothing["error"]
    assert mongo["posts"].count_documents({"title": post["title"], "revision": 1}) == 2


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ([], ["body"]),
        ({}, ["body", "operations"]),
        ({"operations": []}, ["body", "operations"]),
        ({"operations": [{"op": "delete", "id": SOME_ID}] * 1_001}, ["body", "operations"]),
        ({"operations": [{"op": "delete", "id": SOME_ID}], "atomic": 1}, ["body", "atomic"]),
        ({"operations": [1]}, ["body", "operations", 0]),
        ({"operations": [{"op": "upsert"}]}, ["body", "operations", 0, "op"]),
        ({"operations": [{"op": "delete"}]}, ["body", "operations", 0, "id"]),
        ({"operations": [{"op": "delete", "id": None}]}, ["body", "operations", 0, "id"]),
        ({"operations": [{"op": "delete", "id": {"$gt": ""}}]}, ["body", "operations", 0, "id"]),
        ({"operations": [{"op": "delete", "id": SOME_ID, "patch": {}}]}, ["body", "operations", 0, "patch"]),
        ({"operations": [{"op": "update", "id": SOME_ID, "patch": 1}]}, None),
        ({"operations": [{"op": "create", "document": {}, "if_match": "*"}]}, ["body", "operations", 0, "if_match"]),
        ({"operations": [{"op": "delete", "id": SOME_ID, "if_match": "a"}]}, ["body", "operations", 0, "if_match"]),
    ],
)
def test_malformed_requests(alice: User, body: Any, place: list[str | int] | None) -> None:
    """Are refused as a whole, with the place."""
    found = places(alice.client.post("/posts/bulk", json=body))
    assert place is None or found == [place]


def test_results_are_in_order(alice: User, title: str) -> None:
    """Each is what the single request would be answered; a later operation sees what an earlier one wrote."""
    id = "65f0" + uuid.uuid4().hex[:20]
    stale = '"stale"'
    answer = bulk(
        alice.client,
        {"op": "create", "id": id, "document": {"title": title}},
        {"op": "create", "id": id, "document": {"title": title}},
        {"op": "update", "id": id, "patch": {"body": "merged"}},
        {"op": "update", "id": id, "patch": [{"op": "add", "path": "/tags/-", "value": "b"}]},
        {"op": "update", "id": id, "patch": {"$push": {"tags": "c"}}},
        {"op": "update", "id": id, "patch": [{"op": "test", "path": "/title", "value": "no"}]},
        {"op": "update", "id": id, "patch": {"$inc": {"title": 1}}},
        {"op": "update", "id": id, "patch": {"revision": 9}},
        {"op": "replace", "id": id, "document": {"title": 5}},
        {"op": "delete", "id": id, "if_match": stale},
        {"op": "delete", "id": "no id"},
        {"op": "create", "id": "bulk", "document": {"title": title}},
        {"op": "create", "document": {"title": title, "author_id": SOME_ID}},
        {"op": "replace", "id": id, "document": {"title": f"{title} b"}},
        {"op": "delete", "id": id, "if_match": "*"},
        {"op": "delete", "id": id},
    )
    assert answer.status_code == 207
    assert answer.headers["x-position"]
    assert statuses(answer) == [201, 409, 200, 200, 200, 409, 422, 422, 422, 412, 422, 422, 422, 200, 204, 404]
    results = answer.json()["results"]
    assert [results[number]["document"]["revision"] for number in (0, 2, 3, 4, 13)] == [1, 2, 3, 4, 5]
    assert results[4]["document"]["tags"] == ["b", "c"]
    assert results[14] == {"status": 204, "id": id}
    faulty: dict[int, list[str | int]] = {
        1: ["document", "id"],
        5: ["patch", 0, "value"],
        6: ["patch", "$inc", "title"],
        7: ["patch", "revision"],
        8: ["document", "title"],
        10: ["id"],
        11: ["id"],
        12: ["document", "author_id"],
    }
    for number, place in faulty.items():
        error = results[number]["error"]
        assert set(error) == KEYS | {"errors"}
        assert [fault["loc"] for fault in error["errors"]] == [["body", "operations", number, *place]]


def test_all_done_is_200(alice: User, title: str) -> None:
    """With the new documents, whose ids the server made."""
    for atomic in (False, True):
        creating: dict[str, Any] = {"op": "create", "document": {"title": title}}
        answer = bulk(alice.client, creating, creating, atomic=atomic)
        assert (answer.status_code, statuses(answer)) == (200, [201, 201])
        one, other = answer.json()["results"]
        assert one["id"] == one["document"]["id"] != other["id"]
        assert alice.client.get(f"/posts/{one['id']}").json() == one["document"]


@pytest.mark.parametrize(
    ("failing", "status", "code", "place"),
    [
        ({"op": "create", "document": {"title": 5}}, 422, "invalid", ["document", "title"]),
        ({"op": "update", "id": SOME_ID, "patch": {}}, 409, "conflict", []),
        ({"op": "delete", "id": "no id"}, 422, "invalid", ["id"]),
        ({"op": "update", "id": "post", "patch": {"status": "hidden"}}, 409, "conflict", []),
        ({"op": "delete", "id": "post", "if_match": '"stale"'}, 409, "conflict", []),
        ({"op": "create", "document": {"title": "t", "slug": "taken"}}, 409, "duplicate", ["document", "slug"]),
        ({"op": "update", "id": "post", "patch": [{"op": "remove", "path": "/tags/9"}]}, 409, "conflict",
         ["patch", 0, "path"]),
    ],
)  # fmt: skip
def test_an_atomic_failure_leaves_nothing(
    server: Server,
    alice: User,
    post: dict[str, Any],
    mongo: Mongo,
    title: str,
    failing: dict[str, Any],
    status: int,
    code: str,
    place: list[str | int],
) -> None:
    """The operations before and after it did not happen, and no socket hears of them."""
    failing = failing | ({"id": post["id"]} if failing.get("id") == "post" else {})
    if failing.get("document", {}).get("slug"):
        failing = {**failing, "document": {**failing["document"], "slug": post["slug"]}}
    before = sorted(mongo["posts"].find({}), key=lambda document: str(document["_id"]))
    with live(server, alice.token) as socket:
        socket.subscribe("1", "posts", filter={"title": {"$in": [title, f"{title} changed"]}})
        answer = bulk(
            alice.client,
            {"op": "create", "document": {"title": title}},
            {"op": "update", "id": post["id"], "patch": {"title": f"{title} changed"}},
            failing,
            {"op": "delete", "id": post["id"]},
            atomic=True,
        )
        assert places(answer, status, code) == [["body", "operations", 2, *place]]
        assert "peration 2 failed" in answer.json()["detail"]
        assert sorted(mongo["posts"].find({}), key=lambda document: str(document["_id"])) == before
        # The next event is that of a later write.
        done = alice.client.patch(f"/posts/{post['id']}", json={"title": f"{title} changed"}).json()
        event = socket.receive()
        assert (event["op"], event["document"]) == ("update", done)


def test_an_atomic_request_is_seen_at_once(server: Server, alice: User, post: dict[str, Any], title: str) -> None:
    """Several operations on one document build on each other; a subscriber gets each change, in order."""
    with live(server, alice.token) as socket:
        socket.subscribe("1", "posts", filter={"title": title})
        answer = bulk(
            alice.client,
            {"op": "update", "id": post["id"], "patch": {"$push": {"tags": "x"}}},
            {"op": "create", "document": {"title": title}},
            {"op": "update", "id": post["id"], "patch": {"$push": {"tags": "y"}}},
            {"op": "delete", "id": post["id"]},
            atomic=True,
        )
        assert (answer.status_code, statuses(answer)) == (200, [200, 201, 200, 204])
        assert answer.json()["results"][2]["document"]["tags"] == ["a", "x", "y"]
        assert [socket.receive()["op"] for _ in range(4)] == ["update", "create", "update", "delete"]


def test_a_thousand_operations(alice: User, title: str, mongo: Mongo) -> None:
    """Are done in a reasonable time, either way, while others are served."""
    title = title[-8:]  # a thousand of them are to fit into one body
    documents: list[dict[str, Any]] = [{"op": "create", "document": {"title": title}}] * 250
    bad: list[dict[str, Any]] = [{"op": "create", "document": {"title": ""}}] * 750
    began = time.monotonic()
    answer = bulk(alice.client, *documents, *bad)
    assert statuses(answer) == [201] * 250 + [422] * 750
    ids = [result["id"] for result in answer.json()["results"][:250]]
    changing = [{"op": "update", "id": id, "patch": {"$set": {"body": "b"}}} for id in ids]
    assert bulk(alice.client, *changing, atomic=True).status_code == 200
    assert mongo["posts"].count_documents({"title": title, "body": "b", "revision": 2}) == 250
    assert time.monotonic() - began < 30
