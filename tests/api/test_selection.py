"""PATCH and DELETE of all that match a filter, as a client sees them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from api.problems import problem_of
from documents import TooManyMatch
from tests.api.servers import User
from tests.api.test_errors import places, problem
from tests.api.test_patches import JSON_PATCH, OPERATORS, TITLES

Mongo = Database[dict[str, Any]]
TAG = {"$addToSet": {"tags": "found"}}


def update(client: httpx.Client, content: Any = TAG, kind: str = OPERATORS, **query: str) -> httpx.Response:
    """Change all that match."""
    return client.patch("/posts", params=query, json=content, headers={"Content-Type": kind})


def insert(mongo: Mongo, alice: User, count: int, **fields: Any) -> list[ObjectId]:
    """Posts of alice's, as another program writes them."""
    documents = [{"author_id": ObjectId(alice.id), "status": "published", "tags": [], **fields} for _ in range(count)]
    return list(mongo["posts"].insert_many(documents).inserted_ids)


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({}, ["query", "filter"]),
        ({"filter": "{}"}, ["query", "filter"]),
        ({"filter": '{"$and":[{}]}'}, ["query", "filter"]),
        ({"filter": '{"$or":[{"title":"a"},{}]}'}, ["query", "filter"]),
        ({"title": "a", "sort": "title"}, ["query", "sort"]),
        ({"title": "a", "limit": "1"}, ["query", "limit"]),
        ({"title": "a", "page": "1"}, ["query", "page"]),
        ({"title": "a", "fields": "title"}, ["query", "fields"]),
        ({"title": "a", "cursor": "x"}, ["query", "cursor"]),
        ({"nope": "a"}, ["query", "nope"]),
        ({"filter": '{"$where":"1"}'}, ["query", "filter", "$where"]),
    ],
)
def test_without_a_filter(alice: User, mongo: Mongo, query: dict[str, str], place: list[str]) -> None:
    """Nothing is written: an empty one is none, and parameters of pages have no meaning."""
    before = mongo["posts"].count_documents({})
    assert places(update(alice.client, **query)) == [place]
    assert places(alice.client.delete("/posts", params=query)) == [place]
    assert mongo["posts"].count_documents({}) == before
    assert mongo["posts"].count_documents({"tags": "found"}) == 0


def test_with_a_condition(alice: User, post: dict[str, Any]) -> None:
    """A condition on one document is refused, and not ignored."""
    for method in ("PATCH", "DELETE"):
        answer = alice.client.request(
            method, f"/posts?slug={post['slug']}", json={"body": "x"}, headers={"If-Match": '"a"'}
        )
        assert places(answer) == [["header", "If-Match"]]
    assert alice.client.get(f"/posts/{post['id']}").json() == post


def test_who_may_not(anonymous: httpx.Client, bob: User, post: dict[str, Any], draft: dict[str, Any]) -> None:
    """Anonymous callers are asked to sign in; other people's documents are neither counted nor touched."""
    query = {"title": post["title"]}
    problem(update(anonymous, **query), 401, "unauthorized")
    problem(anonymous.delete("/posts", params=query), 401, "unauthorized")
    nothing = {"matched": 0, "modified": 0, "failed": [], "failed_total": 0}
    assert update(bob.client, **query).json() == nothing
    assert update(bob.client, title=draft["title"]).json() == nothing
    assert bob.client.delete("/posts", params=query).json() == nothing
    assert anonymous.get(f"/posts/{post['id']}").json() == post


def test_only_what_the_caller_may_change(
    alice: User, bob: User, moderator: User, title: str, post: dict[str, Any], mongo: Mongo
) -> None:
    """Of all that match, an author's request changes the author's own; what a moderator has hidden stays as it is."""
    [hidden] = insert(mongo, alice, 1, title=title, slug=f"{post['slug']}-h", status="hidden")
    bob.client.post("/posts", json={"title": title, "status": "published"})
    answer = update(alice.client, search=title)
    assert answer.json() == {"matched": 1, "modified": 1, "failed": [], "failed_total": 0}
    assert answer.headers["x-position"]
    changed = alice.client.get(f"/posts/{post['id']}").json()
    assert (changed["tags"], changed["revision"]) == (["a", "found"], 2)
    # The author's own is already so.
    counts = update(moderator.client, search=title).json()
    assert (counts["matched"], counts["modified"]) == (3, 2)
    assert alice.client.delete("/posts", params={"title": title}).json()["matched"] == 1
    assert mongo["posts"].count_documents({"title": title}) == 2
    assert mongo["posts"].find_one({"_id": hidden})


@pytest.mark.parametrize("kind", list(TITLES))
def test_every_kind_of_patch(alice: User, post: dict[str, Any], kind: str) -> None:
    """Is taken as by the single request."""
    assert update(alice.client, TITLES[kind], kind, title=post["title"]).json()["modified"] == 1
    assert alice.client.get(f"/posts/{post['id']}").json()["title"] == "New"


def test_a_patch_that_no_document_can_take(alice: User, post: dict[str, Any]) -> None:
    """Is refused as a whole."""
    query = {"title": post["title"]}
    assert places(update(alice.client, {"$set": {"revision": 1}}, **query)) == [["body", "$set", "revision"]]
    problem(update(alice.client, kind="text/plain", **query), 415, "unsupported_media_type")


def test_those_that_fail_are_named(alice: User, title: str, mongo: Mongo) -> None:
    """With the single request's problem; the others are changed. Past a hundred they are only counted."""
    good = insert(mongo, alice, 3, title=title, body="good")
    bad = insert(mongo, alice, 130, title=title, body="bad")
    testing = [{"op": "test", "path": "/body", "value": "good"}, {"op": "replace", "path": "/body", "value": "new"}]
    content = update(alice.client, testing, JSON_PATCH, filter=json.dumps({"title": title})).json()
    assert (content["matched"], content["modified"], content["failed_total"]) == (133, 3, 130)
    assert len(content["failed"]) == 100
    assert {entry["id"] for entry in content["failed"]} <= {str(id) for id in bad}
    error = content["failed"][0]["error"]
    assert (error["status"], error["code"]) == (409, "conflict")
    assert error["errors"][0]["loc"] == ["body", 0, "value"]
    assert mongo["posts"].count_documents({"_id": {"$in": good}, "body": "new", "revision": 1}) == 3
    assert alice.client.delete("/posts", params={"title": title}).json()["modified"] == 133
    assert mongo["posts"].count_documents({"title": title}) == 0


def test_into_what_the_caller_may_not(alice: User, post: dict[str, Any]) -> None:
    """A document that would leave the caller's rights is refused."""
    content = update(alice.client, {"$set": {"status": "hidden"}}, title=post["title"]).json()
    assert (content["matched"], content["modified"]) == (1, 0)
    assert content["failed"][0]["error"]["status"] == 403


def test_more_than_ten_thousand() -> None:
    """Is a conflict with what is there."""
    found = problem_of(TooManyMatch())
    assert (found.status, found.code, found.detail[-1]) == (409, "conflict", ".")
