"""Distinct values and reports over REST."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import User
from tests.api.test_errors import places, problem

Mongo = Database[dict[str, Any]]
NEW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
OLD = dt.datetime(2020, 6, 1, tzinfo=dt.UTC)


@pytest.fixture
def tag(alice: User, mongo: Mongo) -> str:
    """A tag of three posts of alice's, one a draft and one old; the others have more tags."""
    tag = uuid.uuid4().hex[:12]
    common = {"author_id": ObjectId(alice.id), "body": tag}
    mongo["posts"].insert_many(
        [
            {"title": "1", "slug": f"{tag}-1", "status": "published", "created_at": NEW, "tags": [tag, "b"]} | common,
            {"title": "2", "slug": f"{tag}-2", "status": "published", "created_at": OLD, "tags": [tag, "a", "a"]}
            | common,
            {"title": "3", "slug": f"{tag}-3", "status": "draft", "created_at": NEW, "tags": [tag, "c"]} | common,
            {"title": "4", "slug": f"{tag}-4", "status": "published", "tags": []} | common,
        ]
    )
    return tag


def values(answer: httpx.Response) -> list[Any]:
    """The values of an answer that holds all of them."""
    assert answer.status_code == 200, answer.text
    assert answer.json()["more"] is False
    assert answer.headers["x-position"]
    return [item["value"] for item in answer.json()["items"]]


def test_distinct_values_of_what_one_may_read(anonymous: httpx.Client, alice: User, tag: str) -> None:
    """Those of other people's drafts are not among them."""
    url = f"/posts/distinct/tags?search={tag}"
    assert values(anonymous.get(url)) == sorted([tag, "a", "b"])
    assert values(alice.client.get(url)) == sorted([tag, "a", "b", "c"])


def test_distinct_values_of_a_field_one_may_not_see(alice: User) -> None:
    """Hidden fields and unknown ones are one and the same."""
    for path in ("password_hash", "_id", "nope", "title.x", "tags.0", "tags.nope", "", "$title", "a..b", "%00"):
        answer = alice.client.get(f"/posts/distinct/{path}")
        if path:
            assert places(answer) == [["path", "field"]]
        else:
            problem(answer, 404, "not_found")


def test_distinct_values_in_order(anonymous: httpx.Client, tag: str) -> None:
    """The least ones, up to `limit`; `more` says that there are others."""
    url = f"/posts/distinct/title?search={tag}"
    assert values(anonymous.get(url)) == ["1", "2", "4"]
    answer = anonymous.get(f"{url}&limit=2").json()
    assert answer == {"items": [{"value": "1"}, {"value": "2"}], "more": True}
    assert values(anonymous.get(f"/posts/distinct/created_at?search={tag}")) == [
        "2020-06-01T00:00:00.000Z",
        "2026-06-01T00:00:00.000Z",
    ]
    assert len(values(anonymous.get(f"/posts/distinct/id?search={tag}"))) == 3


def test_distinct_values_with_counts(anonymous: httpx.Client, tag: str) -> None:
    """Each with the number of documents that have it, once each."""
    items = anonymous.get(f"/posts/distinct/tags?search={tag}&count=exact").json()["items"]
    assert {item["value"]: item["count"] for item in items} == {tag: 2, "a": 1, "b": 1}
    assert values(anonymous.get(f"/posts/distinct/tags?tags={tag}&tags[in]=b,x")) == sorted([tag, "b"])


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("limit=1001", "limit"),
        ("limit=0", "limit"),
        ("count=estimated", "count"),
        ("sort=title", "sort"),
        ("fields=title", "fields"),
        ("cursor=a", "cursor"),
        ("page=1", "page"),
        ("nope=1", "nope"),
        ("filter=x", "filter"),
    ],
)
def test_distinct_values_that_cannot_be_asked_for(anonymous: httpx.Client, query: str, place: str) -> None:
    """Each fault has its place."""
    assert places(anonymous.get(f"/posts/distinct/tags?{query}")) == [["query", place]]


def posts_by_tag(answer: httpx.Response) -> dict[str, int]:
    """The rows of the report of tags."""
    assert answer.status_code == 200, answer.text
    return {row["tag"]: row["posts"] for row in answer.json()["items"]}


def test_report(anonymous: httpx.Client, alice: User, tag: str) -> None:
    """Counts what its caller may read, with typed parameters."""
    url = "/posts/reports/tags?most=1000"
    assert posts_by_tag(anonymous.get(url))[tag] == 2
    assert posts_by_tag(alice.client.get(url))[tag] == 3
    assert posts_by_tag(alice.client.get(f"{url}&since=2026-01-01T00:00:00Z"))[tag] == 2
    assert posts_by_tag(alice.client.get(f"{url}&status=draft"))[tag] == 1
    assert tag not in posts_by_tag(anonymous.get(f"{url}&status=draft"))
    answer = alice.client.get(f"{url}&status=draft")
    (row,) = (row for row in answer.json()["items"] if row["tag"] == tag)
    assert row == {"tag": tag, "posts": 1, "newest": "2026-06-01T00:00:00.000Z"}
    assert answer.headers["x-position"]
    assert "Authorization" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("most=0", "most"),
        ("most=many", "most"),
        ("since=yesterday", "since"),
        ("since=0.5", "since"),
        ("status=nope", "status"),
        ("nope=1", "nope"),
        ("most=1&most=2", "most"),
        ("since[$gt]=1", "since[$gt]"),
        ("filter={}", "filter"),
    ],
)
def test_report_that_cannot_be_asked_for(anonymous: httpx.Client, query: str, place: str) -> None:
    """Each fault has its place."""
    assert places(anonymous.get(f"/posts/reports/tags?{query}")) == [["query", place]]


def test_report_that_nobody_declared(anonymous: httpx.Client) -> None:
    """There is nothing at its address."""
    problem(anonymous.get("/posts/reports/nope"), 404, "not_found")
    problem(anonymous.get("/comments/reports/tags"), 404, "not_found")


def test_forms_and_methods(anonymous: httpx.Client) -> None:
    """JSON alone; HEAD where GET is."""
    for path in ("/posts/distinct/tags", "/posts/reports/tags"):
        problem(anonymous.get(path, headers={"Accept": "text/csv"}), 406, "not_acceptable")
        head = anonymous.head(path)
        assert (head.status_code, head.content) == (200, b"")
        refused = anonymous.post(path)
        problem(refused, 405, "method_not_allowed")
        assert refused.headers["allow"] == "GET, HEAD"
