"""Changes to what a document is already."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pymongo.database import Database

from tests.api.servers import Server, User, live
from tests.api.test_errors import problem
from tests.api.test_patches import JSON_PATCH, MERGE, OPERATORS, patch

Mongo = Database[dict[str, Any]]

#: Each leaves a post as the fixture has made it.
SAME: list[tuple[str, Any]] = [
    (MERGE, {}),
    (MERGE, {"body": "Water.", "tags": ["a"]}),
    (JSON_PATCH, []),
    (JSON_PATCH, [{"op": "test", "path": "/body", "value": "Water."}]),
    (JSON_PATCH, [{"op": "add", "path": "/tags/-", "value": "b"}, {"op": "remove", "path": "/tags/1"}]),
    (OPERATORS, {"$set": {"body": "Water."}, "$addToSet": {"tags": "a"}}),
    (OPERATORS, {"$max": {"body": "A"}, "$pull": {"tags": "z"}}),
]


def unchanged(client: httpx.Client, before: httpx.Response, answer: httpx.Response) -> None:
    """The answer is the document as it was, and so is what is read then."""
    assert answer.status_code == 200, answer.text
    for now in (answer, client.get(str(before.url))):
        assert now.json() == before.json()
        assert {now.headers[name] for name in ("etag", "last-modified")} == {
            before.headers[name] for name in ("etag", "last-modified")
        }


@pytest.mark.parametrize(("kind", "content"), SAME)
def test_patch(alice: User, post: dict[str, Any], mongo: Mongo, kind: str, content: Any) -> None:
    """Of any kind: nothing is another, neither the revision nor the time, and in the database nothing at all."""
    before, stored = alice.client.get(f"/posts/{post['id']}"), mongo["posts"].find_one({"title": post["title"]})
    unchanged(alice.client, before, patch(alice.client, f"/posts/{post['id']}", kind, content))
    assert mongo["posts"].find_one({"title": post["title"]}) == stored


def test_replacement(alice: User, post: dict[str, Any]) -> None:
    """By what is there: the same. What the client leaves out gets its default, which is a change."""
    before = alice.client.get(f"/posts/{post['id']}")
    same = {name: post[name] for name in ("title", "slug", "body", "tags", "status")}
    unchanged(alice.client, before, alice.client.put(f"/posts/{post['id']}", json=same))
    del same["body"]
    assert alice.client.put(f"/posts/{post['id']}", json=same).json()["revision"] == 2


def test_who_may_not(anonymous: httpx.Client, bob: User, alice: User, post: dict[str, Any]) -> None:
    """Is refused as for any change, and a stale tag is stale."""
    url, same = f"/posts/{post['id']}", {"body": "Water."}
    problem(patch(anonymous, url, MERGE, same), 401, "unauthorized")
    problem(patch(bob.client, url, MERGE, same), 403, "forbidden")
    problem(patch(alice.client, url, MERGE, same, **{"If-Match": '"stale"'}), 412, "precondition_failed")


def test_many_at_once(alice: User, post: dict[str, Any], title: str) -> None:
    """Bulk operations have them among others; of all that match a filter, they are not counted as modified."""
    other = alice.client.post("/posts", json={"title": title, "body": "Less."}).json()
    update = {"op": "update", "patch": {"body": "Water."}}
    for atomic, ids in ((True, [post["id"]]), (True, [post["id"], other["id"]]), (False, [post["id"], other["id"]])):
        operations = [update | {"id": id} for id in ids]
        answer = alice.client.post("/posts/bulk", json={"operations": operations, "atomic": atomic})
        assert answer.status_code == 200, answer.text
        assert "x-position" in answer.headers
        revisions = [result["document"]["revision"] for result in answer.json()["results"]]
        assert revisions == [1, 2][: len(ids)]
    selected = patch(alice.client, f"/posts?title={title}", MERGE, {"body": "Water."}).json()
    assert (selected["matched"], selected["modified"], selected["failed_total"]) == (2, 0, 0)
    selected = patch(alice.client, f"/posts?title={title}", MERGE, {"status": "published"}).json()
    assert (selected["matched"], selected["modified"]) == (2, 1)


def test_live_view(server: Server, alice: User, post: dict[str, Any]) -> None:
    """Hears nothing, not even that there was nothing."""
    with live(server, alice.token) as socket:
        socket.subscribe("1", filter={"title": post["title"]})
        answer = patch(alice.client, f"/posts/{post['id']}", MERGE, {"body": "Water."})
        socket.send(type="ping", id="p", position=answer.headers["x-position"])
        assert socket.receive() == {"type": "pong", "id": "p"}
        assert patch(alice.client, f"/posts/{post['id']}", MERGE, {"body": "More."}).status_code == 200
        event = socket.receive()
        assert (event["op"], event["changed"], event["document"]["revision"]) == ("update", ["body"], 2)


def test_action(alice: User, moderator: User, post: dict[str, Any]) -> None:
    """That leads to what is there leaves it alone, too."""
    before = alice.client.get(f"/posts/{post['id']}")
    body = {"status": "published", "reason": "Seen, and fine."}
    answer = moderator.client.post(f"/posts/{post['id']}/moderate", json=body)
    unchanged(alice.client, before, answer)


def test_document_that_somebody_wrote_by_hand(alice: User, post: dict[str, Any], mongo: Mongo) -> None:
    """Gets the bookkeeping that it lacks; another type of the same number is another document."""
    stored = mongo["posts"].find_one({"title": post["title"]})
    assert stored is not None
    without = {name: value for name, value in stored.items() if name not in ("revision", "updated_at")}
    bypassing = mongo["posts"]
    bypassing.database.command(
        {
            "update": "posts",
            "updates": [{"q": {"_id": stored["_id"]}, "u": without}],
            "bypassDocumentValidation": True,
        }
    )
    answer = patch(alice.client, f"/posts/{post['id']}", MERGE, {"body": "Water."})
    assert answer.json()["revision"] == 1
    assert "updated_at" in answer.json()
    again = patch(alice.client, f"/posts/{post['id']}", MERGE, {"body": "Water."})
    assert again.json() == answer.json()
