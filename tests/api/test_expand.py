"""`expand` over REST: referenced documents, as the caller may see them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.servers import User
from tests.api.test_errors import SOME_ID, places


@pytest.fixture
def comment(bob: User, post: dict[str, Any]) -> dict[str, Any]:
    """A comment of bob's on a published post of alice's."""
    answer = bob.client.post("/comments", json={"post_id": post["id"], "body": "Water!"})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_reference_that_one_may_not_follow(moderator: User, bob: User, draft: dict[str, Any]) -> None:
    """A draft of somebody else's and a post that nobody has give the same answer."""
    shown = []
    for post_id in (draft["id"], SOME_ID):
        comment = bob.client.post("/comments", json={"post_id": post_id, "body": "x"}).json()
        answer = bob.client.get(f"/comments/{comment['id']}?expand=post_id,post_id.author_id")
        shown.append(answer.json()["expanded"])
        if post_id == draft["id"]:
            by_moderator = moderator.client.get(f"/comments/{comment['id']}?expand=post_id").json()
            assert by_moderator["expanded"]["post_id"]["title"] == draft["title"]
    assert shown == [{"post_id": None}, {"post_id": None}]


def test_document_with_its_references(
    anonymous: httpx.Client, alice: User, bob: User, comment: dict[str, Any], post: dict[str, Any]
) -> None:
    """Each is what the caller would get at its own address: of users, names for those who are signed in."""
    url = f"/comments/{comment['id']}?expand=author_id,post_id.author_id"
    expected = {
        "author_id": {"id": bob.id, "username": "bob"},
        "post_id": post | {"expanded": {"author_id": {"id": alice.id, "username": "alice"}}},
    }
    assert bob.client.get(url).json() == comment | {"expanded": expected}
    unsigned = {"author_id": None, "post_id": post | {"expanded": {"author_id": None}}}
    assert anonymous.get(url).json() == comment | {"expanded": unsigned}


def test_headers_of_a_document_with_references(bob: User, comment: dict[str, Any]) -> None:
    """No tag and no date, since it is several documents; so never 304."""
    url = f"/comments/{comment['id']}"
    for condition in ({"If-None-Match": "*"}, {"If-None-Match": bob.client.get(url).headers["etag"]}):
        answer = bob.client.get(f"{url}?expand=author_id", headers=condition)
        assert answer.status_code == 200
        assert {"etag", "last-modified"}.isdisjoint(answer.headers)
        assert answer.headers["x-position"]
        assert answer.headers["cache-control"] == "private, no-cache"


def test_list_with_references(bob: User, comment: dict[str, Any], post: dict[str, Any]) -> None:
    """Beside the selected fields, of which the reference need not be one; the next page has them too."""
    bob.client.post("/comments", json={"post_id": post["id"], "body": "Another one."})
    url = f"/comments?post_id={post['id']}&fields=body&expand=post_id&limit=1"
    answer = bob.client.get(url)
    (item,) = answer.json()["items"]
    assert item == {"id": comment["id"], "body": comment["body"], "expanded": {"post_id": post}}
    assert "expand=post_id" in answer.headers["link"]
    assert "expanded" not in bob.client.get(f"/comments?post_id={post['id']}").json()["items"][0]


@pytest.mark.parametrize("path", ["/comments", f"/comments/{SOME_ID}", "/users", "/users/me"])
def test_expansion_that_cannot_be_asked_for(alice: User, path: str) -> None:
    """Unknown and hidden fields, and those that refer to nothing, are faults of `expand`, whatever the document."""
    for names in ("nope", "", "id", "password_hash", "body", "post_id.nope", "post_id.author_id.id"):
        answer = alice.client.get(path, params={"expand": names})
        assert {tuple(loc) for loc in places(answer)} == {("query", "expand")}


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson", "text/event-stream"])
def test_expansion_of_other_forms(alice: User, accept: str) -> None:
    """Exports and live lists have none."""
    answer = alice.client.get("/comments?expand=author_id", headers={"Accept": accept})
    assert places(answer) == [["query", "expand"]]
