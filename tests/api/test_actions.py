"""Custom actions over HTTP, and `moderate` as moderators, authors and readers see it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.mailbox import files_to, text_of
from tests.api.servers import Server, User, live, wait_until
from tests.api.test_errors import places, problem

Mongo = Database[dict[str, Any]]
HIDE = {"status": "hidden", "reason": "It gives away an address."}
PUBLISH = {"status": "published", "reason": "It does not, after all."}


@pytest.fixture
def comment(bob: User, post: dict[str, Any]) -> dict[str, Any]:
    """A comment of bob's on alice's post."""
    answer = bob.client.post("/comments", json={"post_id": post["id"], "body": "Ours too."})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def moderated(by: User, path: str, body: Any = HIDE, **headers: str) -> dict[str, Any]:
    """Moderate; the document as it is then."""
    answer = by.client.post(f"{path}/moderate", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize("body", [HIDE, {}, []])
def test_those_who_may_not(
    anonymous: httpx.Client, alice: User, bob: User, post: dict[str, Any], comment: dict[str, Any], body: Any
) -> None:
    """Nobody, a user and the author: 401 and 403, whatever the body is, and nothing has changed."""
    for path in (f"/posts/{post['id']}", f"/comments/{comment['id']}"):
        problem(anonymous.post(f"{path}/moderate", json=body), 401, "unauthorized")
        for user in (alice, bob):
            problem(user.client.post(f"{path}/moderate", json=body), 403, "forbidden")
        assert anonymous.get(path).json()["status"] == "published"


def test_document_that_the_caller_may_not_read(
    anonymous: httpx.Client, bob: User, moderator: User, draft: dict[str, Any]
) -> None:
    """Is not there, also for an action that the caller may not do; nor is one that never was."""
    for client in (anonymous, bob.client):
        problem(client.post(f"/posts/{draft['id']}/moderate", json=HIDE), 404, "not_found")
    problem(moderator.client.post(f"/posts/{ObjectId()}/moderate", json=HIDE), 404, "not_found")
    assert places(moderator.client.post("/posts/nope/moderate", json=HIDE)) == [["path", "id"]]


def test_action_that_there_is_not(moderator: User, post: dict[str, Any]) -> None:
    """404; and 405 for another method."""
    problem(moderator.client.post(f"/posts/{post['id']}/publish", json={}), 404, "not_found")
    problem(moderator.client.post(f"/users/{ObjectId()}/moderate", json=HIDE), 404, "not_found")
    answer = moderator.client.get(f"/posts/{post['id']}/moderate")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"reason": ""}, ["body", "reason"]),
        ({"reason": "  \n "}, ["body", "reason"]),
        ({"reason": "x" * 501}, ["body", "reason"]),
        ({"reason": None}, ["body", "reason"]),
        ({"reason": {"ne": ""}}, ["body", "reason"]),
        ({"reason": {"$ne": ""}}, ["body", "reason", "$ne"]),
        ({"status": "draft"}, ["body", "status"]),
        ({"status": ["hidden"]}, ["body", "status"]),
        ({"author_id": str(ObjectId())}, ["body", "author_id"]),
        ({"a": {"$set": 1}}, ["body", "a", "$set"]),
    ],
)
def test_form_that_is_not_accepted(
    moderator: User, post: dict[str, Any], change: dict[str, Any], place: list[str]
) -> None:
    """The fault has its place, and nothing has changed."""
    path = f"/posts/{post['id']}"
    assert places(moderator.client.post(f"{path}/moderate", json=HIDE | change)) == [place]
    assert moderator.client.get(path).json()["revision"] == post["revision"]
    assert places(moderator.client.post(f"{path}/moderate", json=[])) == [["body"]]


def test_moderating(moderator: User, anonymous: httpx.Client, post: dict[str, Any]) -> None:
    """Answers with the document; `If-Match` is honoured; each time counts as a write."""
    path = f"/posts/{post['id']}"
    etag = anonymous.get(path).headers["etag"]
    answer = moderator.client.post(f"{path}/moderate", json=HIDE, headers={"If-Match": etag})
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["revision"]) == ("hidden", 2)
    assert answer.headers["etag"] == moderator.client.get(path).headers["etag"] != etag
    assert answer.headers["x-position"]
    problem(anonymous.get(path), 404, "not_found")
    stale = moderator.client.post(f"{path}/moderate", json=PUBLISH, headers={"If-Match": etag})
    problem(stale, 412, "precondition_failed")
    assert moderated(moderator, path, PUBLISH)["revision"] == 3
    assert anonymous.get(path).status_code == 200


def test_repeating_by_idempotency_key(moderator: User, post: dict[str, Any]) -> None:
    """Does it once."""
    path = f"/posts/{post['id']}"
    first = moderated(moderator, path, HIDE, **{"Idempotency-Key": post["id"]})
    assert moderated(moderator, path, HIDE, **{"Idempotency-Key": post["id"]}) == first
    assert moderator.client.get(path).json()["revision"] == 2


def test_author_of_a_hidden_post(alice: User, moderator: User, post: dict[str, Any], anonymous: httpx.Client) -> None:
    """Sees it, and can bring it back in no way: not by PUT, PATCH or delete, nor under the same id."""
    path = f"/posts/{post['id']}"
    moderated(moderator, path)
    body = {"title": post["title"], "status": "published"}
    problem(alice.client.put(path, json=body), 403, "forbidden")
    problem(alice.client.patch(path, json={"status": "published"}), 403, "forbidden")
    problem(alice.client.patch(path, json={"title": "Other"}), 403, "forbidden")
    problem(alice.client.delete(path), 403, "forbidden")
    problem(alice.client.put(path, json=body, headers={"If-None-Match": "*"}), 412, "precondition_failed")
    assert alice.client.get(path).json()["status"] == "hidden"
    problem(anonymous.get(path), 404, "not_found")


def test_author_of_a_hidden_comment(
    bob: User, moderator: User, comment: dict[str, Any], anonymous: httpx.Client
) -> None:
    """Cannot bring it back either."""
    path = f"/comments/{comment['id']}"
    moderated(moderator, path)
    body = {"post_id": comment["post_id"], "body": "x", "status": "published"}
    problem(bob.client.put(path, json=body), 403, "forbidden")
    problem(bob.client.patch(path, json={"status": "published"}), 403, "forbidden")
    problem(bob.client.delete(path), 403, "forbidden")
    problem(anonymous.get(path), 404, "not_found")


def test_live_view_of_comments(
    server: Server, bob: User, moderator: User, post: dict[str, Any], comment: dict[str, Any], mongo: Mongo
) -> None:
    """Readers see `leave` and `enter` when the post is hidden and published; the comment's author hears nothing, and a
    comment by mongosh on the hidden post does not stay."""
    path = f"/posts/{post['id']}"
    query = {"filter": {"post_id": post["id"]}}
    with live(server) as reader, live(server, bob.token) as author:
        reader.subscribe("1", "comments", **query)
        author.subscribe("1", "comments", **query)
        moderated(moderator, path)
        assert (event := reader.receive())["op"] == "leave"
        assert event["id"] == comment["id"]
        assert "document" not in event
        moderated(moderator, path, PUBLISH)
        assert (event := reader.receive())["op"] == "enter"
        assert event["document"] == comment
        assert author.answers_ping()
        moderated(moderator, path)
        assert reader.receive()["op"] == "leave"
        fields = {"post_id": ObjectId(post["id"]), "body": "By hand.", "status": "published", "author_id": ObjectId()}
        mongo["comments"].insert_one(fields)
        assert [reader.receive()["op"] for _ in range(2)] == ["create", "leave"]
        # The author of another comment is a reader of this one.
        assert [author.receive()["op"] for _ in range(2)] == ["create", "leave"]
        new = bob.client.post("/comments", json={"post_id": post["id"], "body": "Late."}).json()
        assert author.receive()["id"] == new["id"]
        assert reader.answers_ping()


def test_what_the_author_is_told(
    server: Server, alice: User, bob: User, moderator: User, post: dict[str, Any], mongo: Mongo
) -> None:
    """By mail, with the reason, and text that stays text; the audit has the reason, and who and whose."""
    mail = server.log_path.parent / "data" / "mail"
    told = len(files_to(mail, "alice@example.org", "moderate"))
    reason = "First\nBcc: eve@example.org\n\nlast."
    moderated(moderator, f"/posts/{post['id']}", HIDE | {"reason": reason})
    wait_until(lambda: len(files_to(mail, "alice@example.org", "moderate")) > told)
    message = files_to(mail, "alice@example.org", "moderate")[-1]
    assert message["Subject"] == "A moderator has decided on your post"
    assert message["Bcc"] is None
    assert f"> {post['title']}" in text_of(message)
    assert reason in text_of(message).replace("\r\n", "\n")
    query = {"event": "posts.moderate", "details.document_id": ObjectId(post["id"])}
    wait_until(lambda: mongo["headwater_audit"].find_one(query))
    (entry,) = mongo["headwater_audit"].find(query)
    assert (entry["user_id"], entry["by"]) == (ObjectId(alice.id), ObjectId(moderator.id))
    assert entry["details"] == {"status": "hidden", "reason": reason, "document_id": ObjectId(post["id"])}
    assert bob.client.get(f"/posts/{post['id']}").status_code == 404


def test_own_and_deactivated(server: Server, moderator: User, mongo: Mongo) -> None:
    """Nobody is told of what they did themselves, nor is somebody who may not sign in any more."""
    mail = server.log_path.parent / "data" / "mail"
    own = moderator.client.post("/comments", json={"post_id": str(ObjectId()), "body": "Mine."}).json()
    gone = server.register("gone")
    other = gone.client.post("/comments", json={"post_id": str(ObjectId()), "body": "Theirs."}).json()
    mongo["users"].update_one({"_id": ObjectId(gone.id)}, {"$set": {"is_active": False}})
    for document in (own, other):
        moderated(moderator, f"/comments/{document['id']}")
        query = {"event": "comments.moderate", "details.document_id": ObjectId(document["id"])}
        wait_until(lambda query=query: mongo["headwater_audit"].find_one(query))  # type: ignore[misc]
    # What comes after it has been sent.
    told = server.register("told")
    last = told.client.post("/comments", json={"post_id": str(ObjectId()), "body": "Last."}).json()
    moderated(moderator, f"/comments/{last['id']}")
    wait_until(lambda: files_to(mail, "told@example.org", "moderate"))
    for name in ("mo", "gone"):
        assert files_to(mail, f"{name}@example.org", "moderate") == []


def test_description(server: Server) -> None:
    """One operation per class and action, with the schema of its form."""
    document = httpx.get(f"{server.url}/openapi.json").json()
    for collection in ("posts", "comments"):
        operation = document["paths"][f"/api/v1/{collection}/{{id}}/moderate"]["post"]
        assert operation["operationId"] == f"moderate_{collection}"
        body = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert body == "#/components/schemas/Moderation"
    form = document["components"]["schemas"]["Moderation"]
    assert form["additionalProperties"] is False
    assert form["properties"]["reason"]["maxLength"] == 500
    assert form["examples"]
    assert "post_hidden" in document["components"]["schemas"]["CommentPublic"]["properties"]
    assert "post_hidden" not in document["components"]["schemas"]["CommentCreate"]["properties"]
