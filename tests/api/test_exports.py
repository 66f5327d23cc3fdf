"""Lists as CSV and NDJSON: their content, and what they refuse."""

from __future__ import annotations

import csv
import io
import json
import uuid
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import User
from tests.api.test_errors import places

Mongo = Database[dict[str, Any]]
AS_CSV = {"Accept": "text/csv"}
AS_NDJSON = {"Accept": "application/x-ndjson"}
STAMPS = ["created_at", "created_by", "updated_at", "updated_by", "revision"]
COLUMNS = ["id", "title", "slug", "body", "tags", "status", "author_id", *STAMPS, "invalid"]


@pytest.fixture
def tag(alice: User, mongo: Mongo) -> str:
    """The tag of thirty published posts and a draft of alice's: more than a page."""
    tag = uuid.uuid4().hex[:12]
    common = {"tags": [tag], "author_id": ObjectId(alice.id)}
    mongo["posts"].insert_many(
        [{"title": f"{n:02}", "slug": f"{tag}-{n}", "status": "published"} | common for n in range(30)]
        + [{"title": "30", "slug": f"{tag}-30", "status": "draft"} | common]
    )
    return tag


def rows(answer: httpx.Response) -> list[list[str]]:
    """The lines of a CSV answer, its header first."""
    assert answer.status_code == 200, answer.text
    return list(csv.reader(io.StringIO(answer.content.decode(), newline=""), strict=True))


def test_export_of_what_one_may_read(anonymous: httpx.Client, alice: User, moderator: User, tag: str) -> None:
    """All of it and nothing else: the rule holds as in the list."""
    for client, count in ((anonymous, 30), (alice.client, 31), (moderator.client, 31)):
        for headers, header_lines in ((AS_CSV, 1), (AS_NDJSON, 0)):
            answer = client.get(f"/posts?tags={tag}", headers=headers)
            assert len(answer.content.splitlines()) == count + header_lines


def test_csv(anonymous: httpx.Client, tag: str) -> None:
    """A header of the visible fields, a line for each document in order, with the headers of a download."""
    answer = anonymous.get(f"/posts?tags={tag}&sort=-title", headers=AS_CSV)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["content-disposition"] == 'attachment; filename="posts.csv"'
    assert answer.headers["cache-control"] == "private, no-cache"
    assert "Accept" in answer.headers["vary"]
    assert answer.headers["x-position"]
    assert "link" not in answer.headers
    header, *lines = rows(answer)
    assert header == COLUMNS
    assert [line[1] for line in lines] == [f"{n:02}" for n in reversed(range(30))]
    assert lines[0][COLUMNS.index("tags")] == json.dumps([tag])
    assert lines[0][COLUMNS.index("body")] == ""
    assert answer.content.count(b"\r\n") == answer.content.count(b"\n") == 31


def test_ndjson(anonymous: httpx.Client, tag: str) -> None:
    """Each line is a document as the list shows it."""
    url = f"/posts?tags={tag}&sort=title"
    answer = anonymous.get(url, headers=AS_NDJSON)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == 'attachment; filename="posts.ndjson"'
    documents = [json.loads(line) for line in answer.content.splitlines()]
    assert documents == anonymous.get(f"{url}&limit=100").json()["items"]


def test_selected_fields(anonymous: httpx.Client, tag: str) -> None:
    """`fields` are the columns, in the order asked for, the id first unless it is named; `limit` bounds the whole."""
    url = f"/posts?tags={tag}&sort=title&limit=2"
    for fields, header in (("title,tags", ["id", "title", "tags"]), ("title,id", ["id", "title"])):
        found = rows(anonymous.get(f"{url}&fields={fields}", headers=AS_CSV))
        assert found[0] == header
        assert len(found) == 3
    first, _ = anonymous.get(f"{url}&fields=title", headers=AS_NDJSON).content.splitlines()
    assert set(json.loads(first)) == {"id", "title"}


def test_filter_and_search(anonymous: httpx.Client, tag: str) -> None:
    """They narrow an export as they narrow a list."""
    wanted = json.dumps({"tags": tag, "title": {"$lt": "05"}})
    for params, count in (({"filter": wanted}, 5), ({"tags": tag, "search": "03"}, 1), ({"tags": tag + "x"}, 0)):
        assert len(rows(anonymous.get("/posts", params=params, headers=AS_CSV))) == count + 1
        assert len(anonymous.get("/posts", params=params, headers=AS_NDJSON).content.splitlines()) == count


@pytest.mark.parametrize("headers", [AS_CSV, AS_NDJSON])
@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("cursor=x", "cursor"),
        ("page=1", "page"),
        ("page_size=5", "page_size"),
        ("count=exact", "count"),
        ("expand=author_id", "expand"),
        ("since=x", "since"),
        ("limit=0", "limit"),
        ("limit=2147483648", "limit"),
        ("sort=nope", "sort"),
        ("fields=nope", "fields"),
        ("nope=1", "nope"),
    ],
)
def test_export_that_cannot_be_made(anonymous: httpx.Client, headers: dict[str, str], query: str, place: str) -> None:
    """There are no parts of an export, and what a list refuses it refuses."""
    assert places(anonymous.get(f"/posts?{query}", headers=headers)) == [["query", place]]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+49 30 1", "'+49 30 1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("＝1", "'＝1"),  # noqa: RUF001 - the wide form is the point
        ("-12.5", "-12.5"),
        ("a=1", "a=1"),
        (' say "a, b"\r\nc', ' say "a, b"\r\nc'),
        ("größer 🐟", "größer 🐟"),
        ("'quoted", "'quoted"),
    ],
)
def test_text_that_a_spreadsheet_would_compute(alice: User, text: str, cell: str) -> None:
    """It gets an apostrophe; any other text, a negative number too, comes back as it is."""
    post = alice.client.post("/posts", json={"title": "Formula", "body": text}).json()
    header, line = rows(alice.client.get(f"/posts?id={post['id']}", headers=AS_CSV))
    assert dict(zip(header, line, strict=True))["body"] == cell
    (document,) = alice.client.get(f"/posts?id={post['id']}", headers=AS_NDJSON).content.splitlines()
    assert json.loads(document)["body"] == text


def test_head_of_an_export(anonymous: httpx.Client, tag: str) -> None:
    """The headers of the download, and nothing is downloaded."""
    for headers in (AS_CSV, AS_NDJSON):
        get, head = (anonymous.request(m, f"/posts?tags={tag}", headers=headers) for m in ("GET", "HEAD"))
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-disposition", "vary", "cache-control"):
            assert head.headers[name] == get.headers[name]
        assert head.headers["x-position"]


def test_export_of_users(anonymous: httpx.Client, alice: User, moderator: User) -> None:
    """Anonymous callers have none; users see the columns of users."""
    assert anonymous.get("/users", headers=AS_CSV).status_code == 401
    header, *lines = rows(alice.client.get("/users?sort=username", headers=AS_CSV))
    assert header == ["id", "username", "invalid"]
    assert [alice.id, "alice", ""] in lines
    assert rows(moderator.client.get("/users?limit=1", headers=AS_CSV))[0] == header
    assert places(alice.client.get("/users?fields=email", headers=AS_CSV)) == [["query", "fields"]]
