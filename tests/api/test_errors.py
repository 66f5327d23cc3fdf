"""Every error answer: the one shape, its status, and the place of the fault."""

from __future__ import annotations

import gzip
import json
import re
import socket
from typing import Any

import httpx
import pytest

from tests.api.servers import Server, User

KEYS = {"type", "title", "status", "detail", "instance", "code", "request_id"}
SOME_ID = "65f000000000000000000000"
#: Words that only a stack trace, a query or the driver would bring into an answer.
LEAKS = re.compile(r'Traceback|File "|pymongo|motor|bson|beanie|\$expr|\$\$ROOT|mongodb://|OperationFailure')


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem of the documented shape, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    content: dict[str, Any] = answer.json()
    assert set(content) - {"errors"} == KEYS
    assert content["status"] == status
    assert content["code"] == code
    assert content["request_id"] == answer.headers["x-request-id"]
    assert content["detail"].endswith(".")
    assert not LEAKS.search(answer.text)
    for fault in content.get("errors", []):
        assert set(fault) == {"loc", "msg", "type"}
    return content


def places(answer: httpx.Response, status: int = 422, code: str = "invalid") -> list[list[str | int]]:
    """The places that a problem names."""
    return [fault["loc"] for fault in problem(answer, status, code)["errors"]]


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ('filter={"status":', ["query", "filter"]),
        ('filter={"nope":1}', ["query", "filter", "nope"]),
        ('filter={"title":{"$where":"1"}}', ["query", "filter", "title", "$where"]),
        ('filter={"$or":[{"title":"a"},{"title":{"$regex":"a"}}]}', ["query", "filter", "$or", 1, "title", "$regex"]),
        ('filter={"created_at":{"$gt":"yesterday"}}', ["query", "filter", "created_at", "$gt"]),
        ('filter={"title":1,"title":2}', ["query", "filter", "title"]),
        ('filter={"revision":NaN}', ["query", "filter", "revision"]),
        ('filter={"title":"\\ud800"}', ["query", "filter", "title"]),
        ("filter=[]", ["query", "filter"]),
        ("filter=" + "[" * 3_000, ["query", "filter"]),
        ("nope=1", ["query", "nope"]),
        ("revision[gte]=many", ["query", "revision[gte]"]),
        ("title[like]=a", ["query", "title[like]"]),
        ("sort=-nope", ["query", "sort"]),
        ("sort=tags", ["query", "sort"]),
        ("fields=nope", ["query", "fields"]),
        ("fields=", ["query", "fields"]),
        ("limit=0", ["query", "limit"]),
        ("limit=101", ["query", "limit"]),
        ("limit=\N{ARABIC-INDIC DIGIT ONE}", ["query", "limit"]),
        ("limit=1&limit=2", ["query", "limit"]),
        ("page=0", ["query", "page"]),
        ("page=1&page_size=x", ["query", "page_size"]),
        ("page=1&limit=5", ["query", "limit"]),
        ("page=1&cursor=abc", ["query", "cursor"]),
        ("count=all", ["query", "count"]),
        ("cursor=abc", ["query", "cursor"]),
        ("cursor=é", ["query", "cursor"]),
        ("since=x", ["query", "since"]),
        ("search=", ["query", "search"]),
    ],
)
def test_query_that_is_not_accepted(server: Server, query: str, place: list[str | int]) -> None:
    """Each fault of a list's query string is a 422 that names its parameter, and the path inside a filter."""
    found = places(httpx.get(f"{server.url}/api/v1/posts?{query}"))
    assert [loc for loc in found if loc[: len(place)] == place] or [loc for loc in found if place[: len(loc)] == loc]
    assert all(loc[:2] == place[:2] for loc in found)


def test_query_with_several_faults(server: Server) -> None:
    """One answer names all of them."""
    found = places(httpx.get(f"{server.url}/api/v1/posts?limit=0&sort=nope&fields=nope&nope=1"))
    assert sorted(loc[1] for loc in found) == ["fields", "limit", "nope", "sort"]


@pytest.mark.parametrize("body", [[], "x", 1, None])
def test_body_that_is_no_object(server: Server, alice: User, body: Any) -> None:
    """Is told so, everywhere, in words that name nothing of the server's inside."""
    for method, url in (
        ("POST", "/auth/register"),
        ("POST", "/auth/login"),
        ("POST", "/auth/refresh"),
        ("POST", "/auth/password/forgot"),
        ("PATCH", "/users/me"),
        ("POST", "/users/me/password"),
        ("POST", "/api-keys"),
        ("POST", "/posts"),
        ("POST", "/posts/bulk"),
    ):
        anonymous = url.startswith("/auth")
        client = server.client() if anonymous else alice.client
        answer = client.request(method, url, content=json.dumps(body), headers={"Content-Type": "application/json"})
        fault = {"loc": ["body"], "msg": "a JSON object is expected", "type": "object_type"}
        assert problem(answer, 422, "invalid")["errors"] == [fault], url


@pytest.mark.parametrize(
    ("body", "status", "code", "place"),
    [
        (b"", 400, "bad_request", ["body", 1, 1]),
        (b'{"title": }', 400, "bad_request", ["body", 1, 11]),
        (b'{"title":\n"a"', 400, "bad_request", ["body", 2, 4]),
        (b'{"title":"\xff"}', 400, "bad_request", ["body", 10]),
        (b'\xef\xbb\xbf{"title":"a"}', 400, "bad_request", ["body", 1, 1]),
        (b"[]", 422, "invalid", ["body"]),
        (b"null", 422, "invalid", ["body"]),
        (b"[" * 5_000, 422, "invalid", ["body"]),
        (b"{}", 422, "invalid", ["body", "title"]),
        (b'{"title":""}', 422, "invalid", ["body", "title"]),
        (b'{"title":1}', 422, "invalid", ["body", "title"]),
        (b'{"title":"a","title":"b"}', 422, "invalid", ["body", "title"]),
        (b'{"title":"a","tags":[{"x":{"k":1,"k":2}}]}', 422, "invalid", ["body", "tags", 0, "x", "k"]),
        (b'{"title":"a","body":"\\ud83d"}', 422, "invalid", ["body", "body"]),
        (b'{"\\udc00":1}', 422, "invalid", ["body", "?"]),
        (b'{"title":NaN}', 422, "invalid", ["body", "title"]),
        (b'{"title":"a","tags":[1e999]}', 422, "invalid", ["body", "tags", 0]),
        (b'{"title":"a","tags":[' + b"9" * 5_000 + b"]}", 422, "invalid", ["body", "tags", 0]),
        (b'{"title":9007199254740992}', 422, "invalid", ["body", "title"]),
        (b'{"title":"a","nope":1}', 422, "invalid", ["body", "nope"]),
        (b'{"title":"a","$set":{}}', 422, "invalid", ["body", "$set"]),
        (b'{"title":"a","revision":7}', 422, "invalid", ["body", "revision"]),
        (b'{"title":"a","author_id":"65f000000000000000000000"}', 422, "invalid", ["body", "author_id"]),
        (b'{"title":"a","tags":["x",""]}', 422, "invalid", ["body", "tags", 1]),
        (b'{"title":"a","status":"gone"}', 422, "invalid", ["body", "status"]),
    ],
)
def test_body_that_is_not_accepted(alice: User, body: bytes, status: int, code: str, place: list[str | int]) -> None:
    """What is not JSON is a 400 with the place in the text; what is not accepted a 422 with the place in the value."""
    headers = {"Content-Type": "application/json"}
    for method, url in (("POST", "/posts"), ("PUT", f"/posts/{SOME_ID}")):
        answer = alice.client.request(method, url, content=body, headers=headers)
        assert place in places(answer, status, code), (method, answer.text)


def test_many_faults_and_long_names(alice: User) -> None:
    """An answer names a hundred faults, and of a name its beginning, however large the request is."""
    many = alice.client.post("/posts", json={f"field {n}": 1 for n in range(3_000)})
    assert len(many.json()["errors"]) == 100
    long = alice.client.post("/posts", json={"title": "a", "x" * 50_000: 1})
    assert (long.status_code, len(long.content) < 1_000) == (422, True)


@pytest.mark.parametrize("id", ["1", "z" * 24, "%00", SOME_ID + "0", "a%2Fb", "%C3%A9", "%F0%9F%90%9F"])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_malformed_id(alice: User, method: str, id: str) -> None:
    """An id that no document of the class can have is a 422 that names the path's part."""
    answer = alice.client.request(method, f"/posts/{id}", json={"title": "a"} if method[0] == "P" else None)
    if id == "a%2Fb":
        problem(answer, 404, "not_found")
    else:
        assert places(answer) == [["path", "id"]]


@pytest.mark.parametrize("header", ["abc", '"a', '"a" "b', "*, *", ""])
def test_malformed_precondition(alice: User, post: dict[str, Any], header: str) -> None:
    """An If-Match or If-None-Match that is no list of entity tags is a 422 that names the header."""
    url = f"/posts/{post['id']}"
    assert places(alice.client.delete(url, headers={"If-Match": header})) == [["header", "If-Match"]]
    assert places(alice.client.get(url, headers={"If-None-Match": header})) == [["header", "If-None-Match"]]
    assert alice.client.get(url).status_code == 200


@pytest.mark.parametrize("media_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "a/b;c=d"])
def test_other_media_type(alice: User, post: dict[str, Any], media_type: str | None) -> None:
    """A body that does not say that it is JSON is a 415, which tells what is accepted."""
    headers = {} if media_type is None else {"Content-Type": media_type}
    created = alice.client.post("/posts", content=b'{"title":"a"}', headers=headers)
    problem(created, 415, "unsupported_media_type")
    assert created.headers["accept"] == "application/json"
    patched = alice.client.patch(f"/posts/{post['id']}", content=b"{}", headers=headers)
    problem(patched, 415, "unsupported_media_type")
    assert patched.headers["accept-patch"] == (
        "application/merge-patch+json, application/json-patch+json, "
        "application/vnd.headwater.update+json, application/json"
    )


@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-16", '"latin1"', "", "x"])
def test_other_charset(alice: User, charset: str) -> None:
    """JSON is UTF-8 (RFC 8259, 8.1): a body that says it is something else is a 415, and not read as what it is not."""
    headers = {"Content-Type": f"application/json; charset={charset}"}
    answer = alice.client.post("/posts", content='{"title":"é"}'.encode(), headers=headers)
    problem(answer, 415, "unsupported_media_type")
    assert answer.headers["accept"] == "application/json"


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "utf8", "us-ascii"])
def test_charset_that_is_utf8(alice: User, title: str, charset: str) -> None:
    """May be named."""
    headers = {"Content-Type": f"application/json; charset={charset}"}
    assert alice.client.post("/posts", json={"title": title}, headers=headers).status_code == 201


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, zstd", "x"])
def test_compressed_body(alice: User, post: dict[str, Any], coding: str) -> None:
    """Is a 415 that says that none is accepted (RFC 9110, 15.5.16), wherever a body is read."""
    body = gzip.compress(b'{"title":"a"}')
    for method, path, media_type in (
        ("POST", "/posts", "application/json"),
        ("PATCH", f"/posts/{post['id']}", "application/merge-patch+json"),
        ("POST", "/posts/import", "application/x-ndjson"),
        ("POST", "/files", "multipart/form-data; boundary=b"),
        ("POST", "/auth/login", "application/x-www-form-urlencoded"),
    ):
        headers = {"Content-Type": media_type, "Content-Encoding": coding}
        answer = alice.client.request(method, path, content=body, headers=headers)
        problem(answer, 415, "unsupported_media_type")
        assert answer.headers["accept-encoding"] == "identity"
    assert alice.client.get(f"/posts/{post['id']}").json() == post


def test_body_that_is_called_plain(alice: User, title: str) -> None:
    """Is one like any other."""
    headers = {"Content-Encoding": "identity"}
    assert alice.client.post("/posts", json={"title": title}, headers=headers).status_code == 201


def raw(server: Server, request: bytes) -> bytes:
    """Send bytes, and return what comes back until the server closes or has answered."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (part := connection.recv(65_536)):
            answer += part
    return answer


def test_body_that_says_it_is_too_large(server: Server, alice: User) -> None:
    """The answer comes before the body does."""
    head = (
        f"POST /api/v1/posts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 65537\r\n\r\n"
    )
    assert raw(server, head.encode()).startswith(b"HTTP/1.1 413 ")


def test_body_that_turns_out_too_large(alice: User) -> None:
    """A body of unknown length is counted while it arrives."""
    pieces = (b" " * 4_096 for _ in range(17))
    answer = alice.client.post("/posts", content=pieces, headers={"Content-Type": "application/json"})
    problem(answer, 413, "content_too_large")


def test_body_of_the_largest_size(alice: User, title: str) -> None:
    """A body of exactly the limit is accepted."""
    body = json.dumps({"title": title, "body": ""}).encode()
    padded = body.replace(b'"body": ""', b'"body": "' + b"a" * (65_536 - len(body)) + b'"')
    assert len(padded) == 65_536
    answer = alice.client.post("/posts", content=padded, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201


def test_client_that_leaves_in_the_middle_of_its_body(server: Server, anonymous: httpx.Client) -> None:
    """Nobody is disturbed, and the log (which is judged at the end) tells of no error."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
    assert anonymous.get("/posts").status_code == 200


@pytest.mark.parametrize("host", ["[", "a b", "", "x:99999", "é", "[::1", "a/../b?c#d"])
@pytest.mark.parametrize("target", ["/api/v1/posts", "/nope", "/", "/api/v1/posts?a=%ff", "/api/v1/posts?\xff=1"])
def test_strange_host_and_target(server: Server, host: str, target: str) -> None:
    """A Host header or target that is no address is no error of the server."""
    answer = raw(server, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))
    assert answer[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 422"), answer


def test_query_string_that_is_not_utf8(anonymous: httpx.Client) -> None:
    """Bytes that are no text are refused as a whole, for a page as for a live list."""
    for accept in ("application/json", "text/event-stream"):
        answer = anonymous.get("/posts?title[gte]=%ff", headers={"Accept": accept})
        assert places(answer) == [["query"]]
