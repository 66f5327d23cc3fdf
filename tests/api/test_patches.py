"""The three kinds of PATCH, as a client sees them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.servers import User
from tests.api.test_errors import SOME_ID, places, problem

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
OPERATORS = "application/vnd.headwater.update+json"
#: Each kind sets the title.
TITLES: dict[str, Any] = {
    MERGE: {"title": "New"},
    JSON_PATCH: [{"op": "replace", "path": "/title", "value": "New"}],
    OPERATORS: {"$set": {"title": "New"}},
}
kinds = pytest.mark.parametrize("kind", list(TITLES))


def patch(client: httpx.Client, url: str, kind: str, content: Any, **headers: str) -> httpx.Response:
    """Send a patch of one kind."""
    return client.patch(url, json=content, headers={"Content-Type": kind, **headers})


@kinds
def test_who_may_not(
    anonymous: httpx.Client, bob: User, post: dict[str, Any], draft: dict[str, Any], kind: str
) -> None:
    """Anonymous callers are asked to sign in, other users are refused, and a draft is not there for either."""
    url = f"/posts/{post['id']}"
    problem(patch(anonymous, url, kind, TITLES[kind]), 401, "unauthorized")
    problem(patch(bob.client, url, kind, TITLES[kind]), 403, "forbidden")
    for client in (anonymous, bob.client):
        mine = problem(patch(client, f"/posts/{draft['id']}", kind, TITLES[kind]), 404, "not_found")
        nobody = problem(patch(client, f"/posts/{SOME_ID}", kind, TITLES[kind]), 404, "not_found")
        assert mine["detail"] == nobody["detail"]
    assert anonymous.get(url).json() == post


@kinds
def test_the_owner(alice: User, post: dict[str, Any], kind: str) -> None:
    """Gets the document as it is then, with its new tag; a stale tag changes nothing."""
    url = f"/posts/{post['id']}"
    tag = alice.client.get(url).headers["etag"]
    answer = patch(alice.client, url, kind, TITLES[kind], **{"If-Match": tag})
    assert answer.status_code == 200, answer.text
    assert answer.json() == post | {
        "title": "New",
        "revision": 2,
        "updated_at": answer.json()["updated_at"],
    }
    assert answer.headers["etag"] != tag
    problem(patch(alice.client, url, kind, TITLES[kind], **{"If-Match": tag}), 412, "precondition_failed")
    assert alice.client.get(url).json() == answer.json()


@pytest.mark.parametrize("name", ["author_id", "revision", "created_at", "id"])
def test_fields_that_the_server_sets(alice: User, bob: User, post: dict[str, Any], name: str) -> None:
    """Are named as such by every kind."""
    url, value = f"/posts/{post['id']}", bob.id
    assert places(patch(alice.client, url, MERGE, {name: value})) == [["body", name]]
    replacing = [{"op": "replace", "path": f"/{name}", "value": value}]
    assert places(patch(alice.client, url, JSON_PATCH, replacing)) == [["body", 0, "path"]]
    assert places(patch(alice.client, url, OPERATORS, {"$set": {name: value}})) == [["body", "$set", name]]
    assert alice.client.get(url).json() == post


def test_an_author_cannot_unhide_a_post(alice: User, moderator: User, post: dict[str, Any]) -> None:
    """Nor hide one: the rule is asked before and after, whatever the kind."""
    url = f"/posts/{post['id']}"
    hide = {"$set": {"status": "hidden"}}
    problem(patch(alice.client, url, OPERATORS, hide), 403, "forbidden")
    assert patch(moderator.client, url, OPERATORS, hide).status_code == 200
    showing = [{"op": "replace", "path": "/status", "value": "published"}]
    problem(patch(alice.client, url, JSON_PATCH, showing), 403, "forbidden")


def test_a_failed_test_is_a_conflict(alice: User, post: dict[str, Any]) -> None:
    """As is a path that leads nowhere; both name the operation, and what went before it is undone."""
    url = f"/posts/{post['id']}"
    change = {"op": "replace", "path": "/title", "value": "New"}
    testing = [change, {"op": "test", "path": "/title", "value": "Other"}]
    assert places(patch(alice.client, url, JSON_PATCH, testing), 409, "conflict") == [["body", 1, "value"]]
    nowhere = [change, {"op": "remove", "path": "/tags/7"}]
    assert places(patch(alice.client, url, JSON_PATCH, nowhere), 409, "conflict") == [["body", 1, "path"]]
    assert alice.client.get(url).json() == post
    fitting = [{"op": "test", "path": "/title", "value": post["title"]}, change]
    assert patch(alice.client, url, JSON_PATCH, fitting).json()["title"] == "New"


def test_the_result_is_validated_as_a_whole(alice: User, post: dict[str, Any]) -> None:
    """A limit of the class holds for what a patch makes, and the place is the one in the patch."""
    url = f"/posts/{post['id']}"
    tags = {"$push": {"tags": {"$each": [str(number) for number in range(30)]}}}
    assert places(patch(alice.client, url, OPERATORS, tags)) == [["body", "$push", "tags"]]
    adding = [{"op": "add", "path": "/tags/-", "value": "x" * 41}]
    assert places(patch(alice.client, url, JSON_PATCH, adding)) == [["body", 0, "value"]]
    assert alice.client.get(url).json() == post


@pytest.mark.parametrize(
    ("kind", "content", "place"),
    [
        (MERGE, {"title": 1}, ["body", "title"]),
        (MERGE, {"title": {"a": 1}}, ["body", "title"]),
        (MERGE, {"tags": ["a", 1]}, ["body", "tags", 1]),
        (MERGE, {"body": "Water.", "slug": []}, ["body", "slug"]),
        (OPERATORS, {"$set": {"title": 1}}, ["body", "$set", "title"]),
        (OPERATORS, {"$set": {"tags": [[]]}}, ["body", "$set", "tags", 0]),
    ],
)
def test_values_that_no_document_takes(
    alice: User, post: dict[str, Any], title: str, kind: str, content: Any, place: list[str | int]
) -> None:
    """Are refused before a document is looked at: also under a stale tag, and where a filter matches nothing."""
    stale = patch(alice.client, f"/posts/{post['id']}", kind, content, **{"If-Match": '"stale"'})
    assert places(stale) == [place]
    assert places(patch(alice.client, f"/posts?title=no-{title}", kind, content)) == [place]
    assert alice.client.get(f"/posts/{post['id']}").json() == post


def test_a_duplicate(alice: User, post: dict[str, Any], draft: dict[str, Any]) -> None:
    """A unique value that another document has is a conflict, as for any write."""
    taken = {"$set": {"slug": post["slug"]}}
    answer = patch(alice.client, f"/posts/{draft['id']}", OPERATORS, taken)
    assert places(answer, 409, "duplicate") == [["body", "slug"]]


def test_media_types_are_listed(alice: User, post: dict[str, Any]) -> None:
    """Where a body has none of them."""
    url = f"/posts/{post['id']}"
    answer = patch(alice.client, url, "text/plain", {})
    problem(answer, 415, "unsupported_media_type")
    listed = answer.headers["accept-patch"].split(", ")
    assert sorted(listed) == sorted([MERGE, JSON_PATCH, OPERATORS, "application/json"])
