"""Documents over REST, as a client sees them."""

from __future__ import annotations

import re
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import User
from tests.api.test_errors import SOME_ID, places, problem

Mongo = Database[dict[str, Any]]
MERGE = {"Content-Type": "application/merge-patch+json"}
RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def test_anonymous_may_not_write(anonymous: httpx.Client, post: dict[str, Any]) -> None:
    """Every write asks for a sign-in, and changes nothing."""
    url = f"/posts/{post['id']}"
    for answer in (
        anonymous.post("/posts", json={"title": "a"}),
        anonymous.put(url, json={"title": "a"}),
        anonymous.patch(url, json={"title": "a"}),
        anonymous.delete(url),
        anonymous.put(f"/posts/{ObjectId()}", json={"title": "a"}, headers={"If-None-Match": "*"}),
    ):
        problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == 'Bearer realm="headwater"'
    assert anonymous.get(url).json() == post


def test_another_user(bob: User, post: dict[str, Any]) -> None:
    """May read what is published, but not change or delete it."""
    url = f"/posts/{post['id']}"
    assert bob.client.get(url).json() == post
    problem(bob.client.put(url, json={"title": "b"}), 403, "forbidden")
    problem(bob.client.patch(url, json={"title": "b"}), 403, "forbidden")
    problem(bob.client.delete(url), 403, "forbidden")
    assert bob.client.get(url).json() == post


def test_draft_of_another_user(anonymous: httpx.Client, bob: User, alice: User, draft: dict[str, Any]) -> None:
    """Is not there: the answers are those of an id that nothing has."""
    assert alice.client.get(f"/posts/{draft['id']}").status_code == 200
    for client in (anonymous, bob.client):
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            body = {"title": "b"} if method[0] == "P" else None
            mine = problem(client.request(method, f"/posts/{draft['id']}", json=body), 404, "not_found")
            nobody = problem(client.request(method, f"/posts/{SOME_ID}", json=body), 404, "not_found")
            assert mine["detail"] == nobody["detail"]
        assert client.get("/posts", params={"title": draft["title"]}).json()["items"] == []


def test_moderator(moderator: User, alice: User, post: dict[str, Any], draft: dict[str, Any]) -> None:
    """Reads all, hides what is published; then its author reads it still, and may not change it."""
    url = f"/posts/{post['id']}"
    assert moderator.client.get(f"/posts/{draft['id']}").status_code == 200
    assert moderator.client.patch(url, json={"status": "hidden"}).status_code == 200
    assert alice.client.get(url).json()["status"] == "hidden"
    problem(alice.client.patch(url, json={"status": "published"}), 403, "forbidden")
    problem(alice.client.delete(url), 403, "forbidden")


def test_rule_for_what_a_write_makes(alice: User, draft: dict[str, Any]) -> None:
    """A write that the rule refuses for the document as it would be is refused as a whole."""
    url = f"/posts/{draft['id']}"
    problem(alice.client.patch(url, json={"status": "hidden", "title": "x"}), 403, "forbidden")
    problem(alice.client.post("/posts", json={"title": "x", "status": "hidden"}), 403, "forbidden")
    assert alice.client.get(url).json() == draft


def test_creating(alice: User, anonymous: httpx.Client, mongo: Mongo, title: str) -> None:
    """201, with the document, its address, its tag and a position; stored in native types."""
    body = {"title": title, "status": "published", "tags": ["b", "a"]}
    answer = alice.client.post("/posts", json=body)
    assert answer.status_code == 201
    document = answer.json()
    assert answer.headers["location"] == f"/api/v1/posts/{document['id']}"
    assert answer.headers["x-position"]
    assert {name: document[name] for name in body} == body
    assert document["author_id"] == alice.id
    assert document["revision"] == 1
    assert re.fullmatch(RFC3339, document["created_at"])
    assert document["updated_at"] == document["created_at"]
    read = anonymous.get(answer.headers["location"].removeprefix("/api/v1"))
    assert read.json() == document
    assert read.headers["etag"] == answer.headers["etag"]
    stored = mongo["posts"].find_one({"_id": ObjectId(document["id"])})
    assert stored is not None
    assert stored["author_id"] == ObjectId(alice.id)
    assert set(stored) == set(document) - {"id"} | {"_id"}


def test_value_of_a_unique_index(alice: User, post: dict[str, Any]) -> None:
    """The second one is a 409 that names the field; so is a change into it."""
    answer = alice.client.post("/posts", json={"title": "x", "slug": post["slug"]})
    assert places(answer, 409, "duplicate") == [["body", "slug"]]
    other = alice.client.post("/posts", json={"title": "x"}).json()
    answer = alice.client.patch(f"/posts/{other['id']}", json={"slug": post["slug"]})
    assert places(answer, 409, "duplicate") == [["body", "slug"]]


def test_reading_one(anonymous: httpx.Client, post: dict[str, Any]) -> None:
    """The headers that caches and conditional requests need."""
    answer = anonymous.get(f"/posts/{post['id']}")
    headers = answer.headers
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "private, no-cache"
    assert {"Accept", "Authorization", "X-API-Key", "Origin"} <= set(re.split(r",\s*", headers["vary"]))
    assert re.fullmatch(r'"[^"]+"', headers["etag"])
    assert headers["last-modified"].endswith(" GMT")
    assert headers["x-position"]


def test_reading_what_one_has(anonymous: httpx.Client, alice: User, post: dict[str, Any]) -> None:
    """304 without a body for the present tag, in a list, weak, or `*`; 200 for another one and after a change."""
    url = f"/posts/{post['id']}"
    tag = anonymous.get(url).headers["etag"]
    for header in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = anonymous.get(url, headers={"If-None-Match": header})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert answer.headers["cache-control"] == "private, no-cache"
        assert answer.headers["x-position"]
        assert anonymous.head(url, headers={"If-None-Match": header}).status_code == 304
    assert anonymous.get(url, headers={"If-None-Match": '"x"'}).status_code == 200
    alice.client.patch(url, json={"body": "changed"})
    assert anonymous.get(url, headers={"If-None-Match": tag}).status_code == 200


def test_document_that_was_changed_in_the_shell(anonymous: httpx.Client, mongo: Mongo, post: dict[str, Any]) -> None:
    """It gets a new tag, although nobody touched its revision."""
    url = f"/posts/{post['id']}"
    tag = anonymous.get(url).headers["etag"]
    mongo["posts"].update_one({"_id": ObjectId(post["id"])}, {"$set": {"body": "by hand"}})
    answer = anonymous.get(url, headers={"If-None-Match": tag})
    assert (answer.status_code, answer.json()["body"], answer.json()["revision"]) == (200, "by hand", 1)


def test_reading_what_has_changed_since(anonymous: httpx.Client, mongo: Mongo, post: dict[str, Any]) -> None:
    """`If-Modified-Since` never gives 304, since a change in the shell moves no date; a tag beside it decides."""
    url = f"/posts/{post['id']}"
    read = anonymous.get(url).headers
    mongo["posts"].update_one({"_id": ObjectId(post["id"])}, {"$set": {"body": "by hand"}})
    since = {"If-Modified-Since": read["last-modified"]}
    changed = anonymous.get(url, headers=since)
    assert (changed.status_code, changed.json()["body"]) == (200, "by hand")
    assert changed.headers["last-modified"] == read["last-modified"]
    assert anonymous.get(url, headers=since | {"If-None-Match": read["etag"]}).status_code == 200
    assert anonymous.get(url, headers=since | {"If-None-Match": changed.headers["etag"]}).status_code == 304
    assert anonymous.get(url, headers={"If-Modified-Since": "nonsense"}).status_code == 200


def test_replacing(alice: User, post: dict[str, Any], title: str) -> None:
    """Sets all that the client may set; what is absent gets its default; the rest stays."""
    answer = alice.client.put(f"/posts/{post['id']}", json={"title": title + "!", "slug": post["slug"]})
    assert answer.status_code == 200
    document = answer.json()
    assert (document["title"], document["body"], document["tags"]) == (title + "!", "", [])
    assert document["status"] == "draft"
    for name in ("id", "author_id", "created_at"):
        assert document[name] == post[name]
    assert document["revision"] == 2


def test_creating_under_an_id_of_ones_own(alice: User, title: str) -> None:
    """PUT is a 404 for an unknown id, and with `If-None-Match: *` creates; once."""
    url = f"/posts/{ObjectId()}"
    problem(alice.client.put(url, json={"title": title}), 404, "not_found")
    created = alice.client.put(url, json={"title": title}, headers={"If-None-Match": "*"})
    assert created.status_code == 201
    assert created.headers["location"] == f"/api/v1{url}"
    faulty = alice.client.put(url, json={"title": title, "nope": 1}, headers={"If-None-Match": "*"})
    assert places(faulty) == [["body", "nope"]], "the faults of a request come before what it meets"
    again = alice.client.put(url, json={"title": title}, headers={"If-None-Match": "*"})
    problem(again, 412, "precondition_failed")


@pytest.mark.parametrize("headers", [MERGE, {"Content-Type": "application/json; charset=utf-8"}])
def test_patching(alice: User, post: dict[str, Any], headers: dict[str, str]) -> None:
    """A merge patch changes what it names; null takes the default's place; an array is replaced as a whole."""
    url = f"/posts/{post['id']}"
    answer = alice.client.patch(url, content=b'{"tags":["x"],"body":null}', headers=headers)
    assert answer.status_code == 200
    assert answer.json() == post | {"tags": ["x"], "body": "", "revision": 2, "updated_at": answer.json()["updated_at"]}
    assert alice.client.get(url).json() == answer.json()


def test_patch_that_leaves_the_document_invalid(alice: User, post: dict[str, Any]) -> None:
    """The document is validated as a whole, and stays as it was."""
    url = f"/posts/{post['id']}"
    assert places(alice.client.patch(url, json={"title": None})) == [["body", "title"]]
    assert places(alice.client.patch(url, json={"title": "x" * 201})) == [["body", "title"]]
    assert places(alice.client.patch(url, json={"id": SOME_ID})) == [["body", "id"]]
    assert places(alice.client.patch(url, json=[1])) == [["body"]]
    assert alice.client.get(url).json() == post


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_stale_write(alice: User, post: dict[str, Any], method: str) -> None:
    """With the tag of an earlier state: 412, and nothing is written. With the present one, weak too: done."""
    url = f"/posts/{post['id']}"
    old = alice.client.get(url).headers["etag"]
    new = alice.client.patch(url, json={"body": "b"}).headers["etag"]
    assert new != old
    body = None if method == "DELETE" else {"title": "c"}
    problem(alice.client.request(method, url, json=body, headers={"If-Match": old}), 412, "precondition_failed")
    assert alice.client.get(url).headers["etag"] == new
    right = alice.client.request(method, url, json=body, headers={"If-Match": f"{old}, W/{new}"})
    assert right.status_code == (204 if method == "DELETE" else 200)


def test_deleting(alice: User, anonymous: httpx.Client, post: dict[str, Any]) -> None:
    """204 with a position and no body; afterwards there is nothing."""
    url = f"/posts/{post['id']}"
    answer = alice.client.delete(url)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["x-position"]
    for client in (alice.client, anonymous):
        problem(client.get(url), 404, "not_found")
    problem(alice.client.delete(url), 404, "not_found")


@pytest.fixture(scope="module")
def many(alice: User) -> list[dict[str, Any]]:
    """Seven published posts with a tag of their own, by ascending title."""
    tag = uuid.uuid4().hex[:12]
    made = []
    for number in range(7):
        body = {"title": f"{tag} {number}", "body": f"Gauge{number}x stands", "tags": [tag, f"n{number % 2}"]}
        body["status"] = "published"
        made.append(alice.client.post("/posts", json=body).json())
    return made


def titles(answer: httpx.Response) -> list[str]:
    """The titles of a page."""
    assert answer.status_code == 200, answer.text
    return [item["title"][-1] for item in answer.json()["items"]]


def test_filters_and_their_short_forms(anonymous: httpx.Client, many: list[dict[str, Any]]) -> None:
    """Both mean the same."""
    tag = many[0]["tags"][0]
    for long, short, expected in (
        (f'{{"tags":"{tag}"}}', f"tags={tag}", "0123456"),
        (f'{{"tags":{{"$all":["{tag}","n1"]}}}}', f"tags={tag}&tags=n1", "135"),
        (f'{{"title":{{"$gte":"{tag} 5"}},"tags":"{tag}"}}', f"title[gte]={tag} 5&tags={tag}", "56"),
        (f'{{"title":{{"$in":["{tag} 1","{tag} 2"]}}}}', f"title[in]={tag} 1,{tag} 2", "12"),
        (f'{{"title":{{"$startswith":"{tag.upper()}"}}}}', f"title[startswith]={tag.upper()}", "0123456"),
        (f'{{"id":"{many[3]["id"]}"}}', f"id={many[3]['id']}", "3"),
    ):
        assert "".join(titles(anonymous.get("/posts", params={"filter": long, "sort": "title"}))) == expected
        assert "".join(titles(anonymous.get(f"/posts?sort=title&{short}"))) == expected


def test_search(anonymous: httpx.Client, many: list[dict[str, Any]]) -> None:
    """All words, in any of the searchable fields, without regard to case."""
    tag = many[0]["tags"][0]
    assert titles(anonymous.get("/posts", params={"search": f"{tag.upper()} gauge4X"})) == ["4"]


def test_pages_by_cursor(anonymous: httpx.Client, many: list[dict[str, Any]]) -> None:
    """Following `Link` gives everything once, in order, with the query as it was."""
    url = f"/posts?tags={many[0]['tags'][0]}&sort=-title&limit=3&fields=title"
    pages = []
    while True:
        answer = anonymous.get(url)
        content = answer.json()
        assert set(content) == {"items", "next_cursor", "has_next"}
        assert all(set(item) == {"id", "title"} for item in content["items"])
        assert "x-total-count" not in answer.headers
        pages.append("".join(titles(answer)))
        if not content["has_next"]:
            assert content["next_cursor"] is None
            assert "link" not in answer.headers
            break
        found = re.fullmatch(r'<(/api/v1/posts\?[^>]+)>; rel="next"', answer.headers["link"])
        assert found
        query = parse_qs(urlsplit(found.group(1)).query)
        assert query["cursor"] == [content["next_cursor"]]
        assert query["sort"] == ["-title"]
        url = found.group(1).removeprefix("/api/v1")
    assert pages == ["654", "321", "0"]


def test_cursor_of_another_query(anonymous: httpx.Client, alice: User, many: list[dict[str, Any]]) -> None:
    """A cursor that was made for another filter, order or caller is refused."""
    url = f"/posts?tags={many[0]['tags'][0]}&limit=2"
    cursor = anonymous.get(url).json()["next_cursor"]
    assert anonymous.get(f"{url}&cursor={cursor}").status_code == 200
    for answer in (
        anonymous.get(f"{url}&sort=title&cursor={cursor}"),
        anonymous.get(f"/posts?limit=2&cursor={cursor}"),
        anonymous.get(f"/comments?limit=2&cursor={cursor}"),
        alice.client.get(f"{url}&cursor={cursor}"),
        anonymous.get(f"{url}&cursor={'b' if cursor[0] == 'a' else 'a'}{cursor[1:]}"),
    ):
        assert places(answer) == [["query", "cursor"]]


def test_pages_by_number(anonymous: httpx.Client, many: list[dict[str, Any]]) -> None:
    """With totals, which `count=none` leaves out; a page past the end is empty."""
    url = f"/posts?tags={many[0]['tags'][0]}&sort=title&page_size=3"
    answer = anonymous.get(url + "&page=3")
    assert titles(answer) == ["6"]
    expected = {"total": 7, "page": 3, "page_size": 3, "total_pages": 3, "has_next": False}
    assert {name: value for name, value in answer.json().items() if name != "items"} == expected
    assert answer.headers["x-total-count"] == "7"
    second = anonymous.get(url + "&page=2")
    assert re.search(r"[?&]page=3(&|>)", second.headers["link"])
    assert titles(anonymous.get(url + "&page=9")) == []
    uncounted = anonymous.get(url + "&page=1&count=none")
    assert "total" not in uncounted.json()
    assert "x-total-count" not in uncounted.headers


def test_counting(anonymous: httpx.Client, many: list[dict[str, Any]]) -> None:
    """An exact count goes with cursors too; an estimate, where a filter or rule stands, is exact as well."""
    url = f"/posts?tags={many[0]['tags'][0]}&limit=1"
    for count in ("exact", "estimated"):
        answer = anonymous.get(f"{url}&count={count}")
        assert (answer.json()["total"], answer.headers["x-total-count"]) == (7, "7")


def test_list_of_the_default_size(anonymous: httpx.Client, alice: User) -> None:
    """25 documents."""
    tag = uuid.uuid4().hex[:12]
    for _ in range(26):
        assert alice.client.post("/posts", json={"title": "t", "tags": [tag], "status": "published"}).is_success
    assert len(anonymous.get(f"/posts?tags={tag}").json()["items"]) == 25


def test_position_of_a_read_after_a_write(alice: User, anonymous: httpx.Client, post: dict[str, Any]) -> None:
    """Positions are strings of one width, and the later one is the greater one."""
    url = f"/posts/{post['id']}"
    written = alice.client.patch(url, json={"body": "b"}).headers["x-position"]
    read = anonymous.get(url).headers["x-position"]
    listed = anonymous.get("/posts?limit=1").headers["x-position"]
    assert len(written) == len(read) == len(listed)
    assert written.split(".")[0] <= read.split(".")[0]
