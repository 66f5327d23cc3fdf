"""`Idempotency-Key`: what a client sends again is not done again."""

from __future__ import annotations

import datetime as dt
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import Server, User, wait_until
from tests.api.test_errors import places, problem

CLAIMS = "headwater_idempotency"


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return uuid.uuid4().hex


def create(user: User, key: str, **body: Any) -> httpx.Response:
    """Create a post under a key."""
    return user.client.post("/posts", json=body, headers={"Idempotency-Key": key})


def count(user: User, title: str) -> int:
    """How many posts with this title the user can read."""
    total: int = user.client.get("/posts", params={"title": title, "count": "exact"}).json()["total"]
    return total


def claim_of(mongo: Database[dict[str, Any]], document_id: str) -> dict[str, Any]:
    """The claim that allotted this id."""
    found = mongo[CLAIMS].find_one({"document_id": ObjectId(document_id)})
    assert found is not None
    return found


@pytest.mark.parametrize("value", ["", "a b", "é", "a\tb", "x" * 256])
def test_malformed_key(alice: User, value: str, title: str) -> None:
    """What is not 1 to 255 visible ASCII characters is refused, and nothing is created."""
    headers = {b"Idempotency-Key": value.encode("latin-1")}
    answer = alice.client.post("/posts", json={"title": title}, headers=headers)
    assert places(answer) == [["header", "Idempotency-Key"]]
    assert count(alice, title) == 0


def test_two_keys(alice: User, title: str) -> None:
    """Which of them is meant nobody knows."""
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert places(alice.client.post("/posts", json={"title": title}, headers=headers)) == [
        ["header", "Idempotency-Key"]
    ]


def test_anonymous(anonymous: httpx.Client, key: str) -> None:
    """Nobody in particular has no keys."""
    problem(
        anonymous.post("/posts", json={"title": "x"}, headers={"Idempotency-Key": key}),
        *(401, "unauthorized"),
    )


def test_same_request(alice: User, key: str, title: str, mongo: Database[dict[str, Any]]) -> None:
    """Gets the first answer again, although the document has changed since; and says so."""
    first = create(alice, key, title=title, tags=["a"])
    assert first.status_code == 201
    assert "idempotency-replayed" not in first.headers
    assert alice.client.patch(f"/posts/{first.json()['id']}", json={"tags": ["b"]}).status_code == 200
    again = alice.client.post(
        "/posts",
        content=f'{{ "tags": ["a"], "title": "{title}" }}',
        headers={"Idempotency-Key": key, "Content-Type": "application/json"},
    )
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    for name in ("location", "etag", "x-position", "last-modified", "content-type", "cache-control", "vary"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert count(alice, title) == 1
    stored = claim_of(mongo, first.json()["id"])
    assert key not in str(stored)
    assert stored["expires_at"] - stored["claimed_at"] == dt.timedelta(hours=24)
    index = mongo[CLAIMS].index_information()["expiry"]
    assert index["expireAfterSeconds"] == 0


def test_answer_from_before_the_secret_was_changed(
    alice: User, key: str, title: str, mongo: Database[dict[str, Any]]
) -> None:
    """Is given again, without its position, which says nothing any more."""
    first = create(alice, key, title=title)
    foreign = first.headers["x-position"][:-8] + "00000000"
    claim = claim_of(mongo, first.json()["id"])
    mongo[CLAIMS].update_one({"_id": claim["_id"]}, {"$set": {"answer.headers.X-Position": foreign}})
    again = create(alice, key, title=title)
    assert (again.status_code, again.content) == (201, first.content)
    assert "x-position" not in again.headers


def test_another_body(alice: User, key: str, title: str) -> None:
    """Is a mistake of the client's: nothing is created, and the key keeps its answer."""
    first = create(alice, key, title=title)
    for body in ({"title": title, "tags": ["x"]}, {"title": title + "!"}):
        refused = create(alice, key, **body)
        assert places(refused) == [["header", "Idempotency-Key"]]
    other_query = alice.client.post("/posts?x=1", json={"title": title}, headers={"Idempotency-Key": key})
    assert places(other_query)
    assert create(alice, key, title=title).content == first.content
    assert count(alice, title) == 1


def test_another_caller(alice: User, bob: User, key: str, title: str) -> None:
    """Has keys of their own, whatever they call them."""
    mine, theirs = create(alice, key, title=title), create(bob, key, title=title)
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.json()["id"] != theirs.json()["id"]


def test_api_key(server: Server, alice: User, key: str, title: str) -> None:
    """Is a caller of its own, whose keys are not its owner's."""
    made = alice.client.post("/api-keys", json={"name": "import", "scopes": ["posts:write"]})
    assert made.status_code == 201, made.text
    secret = made.json()["key"]
    server.secrets.append(secret)
    headers = {"X-API-Key": secret, "Idempotency-Key": key}
    mine = create(alice, key, title=title)
    answers = [server.client().post("/posts", json={"title": title}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in (mine, *answers)] == [201] * 3
    assert answers[0].content == answers[1].content
    assert mine.json()["id"] != answers[0].json()["id"]


def test_another_address(alice: User, post: dict[str, Any], key: str, title: str) -> None:
    """Is another request."""
    assert create(alice, key, title=title).status_code == 201
    comment = {"post_id": post["id"], "body": "Clear."}
    answer = alice.client.post("/comments", json=comment, headers={"Idempotency-Key": key})
    assert answer.status_code == 201
    assert "idempotency-replayed" not in answer.headers


def test_refused_request(alice: User, key: str, title: str) -> None:
    """Has changed nothing, so its key may be used for a better one."""
    assert places(create(alice, key, title="")) == [["body", "title"]]
    taken = create(alice, uuid.uuid4().hex, title=title, slug=f"s-{key}")
    problem(create(alice, key, title=title, slug=f"s-{key}"), 409, "duplicate")
    assert taken.status_code == create(alice, key, title=title).status_code == 201
    assert count(alice, title) == 2


def test_many_at_once(alice: User, key: str, title: str) -> None:
    """One of them creates the document; the others are told to wait, or get its answer."""
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: create(alice, key, title=title), range(20)))
    made = [answer for answer in answers if answer.status_code == 201]
    assert len([answer for answer in made if "idempotency-replayed" not in answer.headers]) == 1
    assert len({answer.content for answer in made}) == 1
    for answer in answers:
        if answer.status_code != 201:
            problem(answer, 409, "in_progress")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert count(alice, title) == 1


def running(mongo: Database[dict[str, Any]], document_id: str, seconds: float) -> None:
    """Make a claim what it was before its answer, `seconds` ago: as a worker leaves it that dies."""
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)
    mongo[CLAIMS].update_one(
        {"_id": claim_of(mongo, document_id)["_id"]},
        {"$set": {"state": "running", "claimed_at": moment}, "$unset": {"answer": ""}},
    )


def test_claim_that_ran_out(alice: User, key: str, title: str, mongo: Database[dict[str, Any]]) -> None:
    """After a minute the next one takes over, and finds the document that the first attempt created."""
    first = create(alice, key, title=title)
    running(mongo, first.json()["id"], 50)
    held = create(alice, key, title=title)
    problem(held, 409, "in_progress")
    assert 1 <= int(held.headers["retry-after"]) <= 10
    running(mongo, first.json()["id"], 61)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: create(alice, key, title=title), range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    made = [answer for answer in answers if answer.status_code == 201]
    assert made
    assert {answer.json()["id"] for answer in made} == {first.json()["id"]}
    assert {answer.headers["location"] for answer in made} == {first.headers["location"]}
    assert count(alice, title) == 1


def test_claim_that_ran_out_before_the_write(
    alice: User, key: str, title: str, mongo: Database[dict[str, Any]]
) -> None:
    """The document gets the id that was allotted to the first attempt."""
    first = create(alice, key, title=title)
    assert mongo["posts"].delete_one({"_id": ObjectId(first.json()["id"])}).deleted_count == 1
    running(mongo, first.json()["id"], 61)
    second = create(alice, key, title=title)
    assert (second.status_code, second.json()["id"]) == (201, first.json()["id"])


def test_key_that_expired(alice: User, key: str, title: str, mongo: Database[dict[str, Any]]) -> None:
    """Is free again, also before the database has removed it."""
    first = create(alice, key, title=title)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(milliseconds=1)
    mongo[CLAIMS].update_one({"_id": claim_of(mongo, first.json()["id"])["_id"]}, {"$set": {"expires_at": past}})
    second = create(alice, key, title=title + "!")
    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]


def test_document_that_is_gone(alice: User, key: str, title: str) -> None:
    """Its answer is not given again, and it is not created again."""
    first = create(alice, key, title=title, status="draft")
    assert alice.client.delete(f"/posts/{first.json()['id']}").status_code == 204
    problem(create(alice, key, title=title, status="draft"), 409, "answer_gone")
    assert count(alice, title) == 0


def test_document_that_may_not_be_read_any_more(
    alice: User, bob: User, key: str, title: str, mongo: Database[dict[str, Any]]
) -> None:
    """What the caller created and may not read now is not shown by way of its key."""
    first = create(alice, key, title=title, status="draft", body="A secret of alice's.")
    assert first.status_code == 201
    mongo["posts"].update_one({"_id": ObjectId(first.json()["id"])}, {"$set": {"author_id": ObjectId(bob.id)}})
    wait_until(lambda: alice.client.get(f"/posts/{first.json()['id']}").status_code == 404)
    refused = create(alice, key, title=title, status="draft", body="A secret of alice's.")
    problem(refused, 409, "answer_gone")


def test_answer_given_with_other_rights(server: Any, key: str, title: str, mongo: Database[dict[str, Any]]) -> None:
    """Somebody whose roles have changed gets the document as they see it now."""
    user = server.register(f"u{key[:12]}")
    first = create(user, key, title=title)
    mongo["posts"].update_one({"_id": ObjectId(first.json()["id"])}, {"$set": {"tags": ["edited"]}})
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"roles": ["user", "moderator"]}})
    wait_until(lambda: "moderator" in user.client.get("/users/me").json()["roles"])
    again = create(user, key, title=title)
    assert (again.status_code, again.json()["tags"]) == (201, ["edited"])
    assert again.headers["location"] == first.headers["location"]


def test_answer_that_is_too_large_to_keep(alice: User, key: str, title: str, mongo: Database[dict[str, Any]]) -> None:
    """The document itself answers in its place."""
    first = create(alice, key, title=title)
    stored = claim_of(mongo, first.json()["id"])
    mongo[CLAIMS].update_one({"_id": stored["_id"]}, {"$set": {"answer.body": None}})
    again = create(alice, key, title=title)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"


def test_bulk(alice: User, post: dict[str, Any], key: str, title: str, mongo: Database[dict[str, Any]]) -> None:
    """Is done once; its answer is given again while the caller may read the documents in it."""
    operations = [
        {"op": "create", "document": {"title": title}},
        {"op": "update", "id": post["id"], "patch": {"$push": {"tags": "pushed"}}},
    ]

    def send() -> httpx.Response:
        return alice.client.post("/posts/bulk", json={"operations": operations}, headers={"Idempotency-Key": key})

    first, again = send(), send()
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert alice.client.get(f"/posts/{post['id']}").json()["tags"] == ["a", "pushed"]
    mongo["posts"].delete_one({"_id": ObjectId(first.json()["results"][0]["id"])})
    problem(send(), 409, "answer_gone")
