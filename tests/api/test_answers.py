"""What every answer has, whatever it answers: one shape of errors, a request id, security headers, methods."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from api.problems import CODES
from tests.api.servers import ROOT, Server, User
from tests.api.test_errors import SOME_ID, problem

METHODS = {"get", "head", "post", "put", "patch", "delete"}
PAGES = ["/", "/docs", "/redoc", "/openapi.json", "/health/live", "/health/ready", "/static/page.css", "/favicon.ico"]


@pytest.fixture(scope="session")
def paths(server: Server) -> dict[str, Any]:
    """The paths of the OpenAPI document."""
    found: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    return found


def address(path: str) -> str:
    """The path with an id that nothing has, or a name of nothing, in each of its places."""
    return re.sub(r"{\w+}", SOME_ID, path)


def operations(paths: dict[str, Any]) -> list[tuple[str, str]]:
    """Each documented operation: method, and address with an id that nothing has."""
    return [(m.upper(), address(path)) for path, item in paths.items() for m in item if m in METHODS]


def test_problems_of_every_operation(server: Server, paths: dict[str, Any]) -> None:
    """A token that is not valid, and a query and a body that are not accepted, give the one shape everywhere."""
    called = operations(paths)
    assert len(called) >= 15
    with httpx.Client(base_url=server.url) as client:
        for method, path in called:
            wrong = client.request(method, path, headers={"Authorization": "Bearer nonsense"})
            if path.startswith("/api/v1/auth/") and path != "/api/v1/auth/ticket":
                problem(wrong, 415, "unsupported_media_type")
                continue
            problem(wrong, 401, "unauthorized")
            assert wrong.headers["www-authenticate"] == 'Bearer realm="headwater", error="invalid_token"'


@pytest.mark.parametrize("scheme", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer a", "bearer x y", "nonsense", "", "é"])
def test_header_that_is_no_token(server: Server, scheme: str) -> None:
    """Credentials that are not understood are a 401 on public reads too, and never silently anonymous."""
    answer = httpx.get(f"{server.url}/api/v1/posts", headers={b"Authorization": scheme.encode("latin-1")})
    problem(answer, 401, "unauthorized")


def test_methods_of_every_address(server: Server, paths: dict[str, Any]) -> None:
    """405 and OPTIONS name all methods of the path, HEAD among them where GET is."""
    for path, item in paths.items():
        expected = {m.upper() for m in item if m in METHODS}
        expected |= {"HEAD"} if "GET" in expected else set()
        url = server.url + address(path)
        refused = httpx.request("PROPFIND", url)
        problem(refused, 405, "method_not_allowed")
        assert set(refused.headers["allow"].split(", ")) == expected, path
        options = httpx.options(url)
        assert (options.status_code, options.content) == (204, b"")
        assert options.headers["allow"] == refused.headers["allow"]


def test_patches_of_every_address(server: Server, paths: dict[str, Any]) -> None:
    """OPTIONS names the kinds of patch that an address takes (RFC 5789, 3.1), where it takes any."""
    for path, item in paths.items():
        listed = httpx.options(server.url + address(path)).headers.get("accept-patch")
        bodies = item.get("patch", {}).get("requestBody", {}).get("content", {})
        assert (listed.split(", ") if listed else []) == list(bodies), path
    posts = httpx.options(f"{server.url}/api/v1/posts/{SOME_ID}").headers["accept-patch"].split(", ")
    assert {"application/merge-patch+json", "application/json-patch+json"} < set(posts)
    assert "accept-patch" not in httpx.options(f"{server.url}/api/v1/auth/login").headers


@pytest.mark.parametrize("path", PAGES)
def test_methods_of_pages(server: Server, path: str) -> None:
    """Pages are read only."""
    for method in ("POST", "DELETE", "PUT"):
        refused = httpx.request(method, server.url + path)
        problem(refused, 405, "method_not_allowed")
        assert refused.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/nope", "/api", "/api/v1", "/api/v1/posts/", "/api/v1/nope", "/static/../main.py"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PROPFIND"])
def test_address_of_nothing(server: Server, path: str, method: str) -> None:
    """There is nothing, whatever the method."""
    answer = httpx.request(method, server.url + path)
    assert answer.status_code == 404
    if method != "HEAD":
        problem(answer, 404, "not_found")


def test_classes_without_routes_of_their_own(moderator: User) -> None:
    """Sessions and keys are not served by the generic routes."""
    for name in ("sessions", "api_keys"):
        assert moderator.client.get(f"/{name}").status_code == 404


@pytest.mark.parametrize("path", [*PAGES, "/api/v1/posts", "/api/v1/posts?sort=-title&limit=3"])
def test_head(server: Server, post: dict[str, Any], path: str) -> None:
    """HEAD answers with the headers of GET and no body."""
    varying = {"x-request-id", "date", "x-position", "ratelimit-remaining", "ratelimit-reset"}
    with httpx.Client(base_url=server.url) as client:
        for url in (path, f"/api/v1/posts/{post['id']}"):
            get, head = client.get(url), client.head(url)
            assert head.status_code == get.status_code == 200
            assert head.content == b""
            assert set(head.headers) == set(get.headers)
            for name in set(get.headers) - varying:
                assert head.headers[name] == get.headers[name], name


def test_head_of_a_live_list(server: Server) -> None:
    """It does not wait for events."""
    answer = httpx.head(f"{server.url}/api/v1/posts", headers={"Accept": "text/event-stream"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize("path", [*PAGES, "/nope", "/api/v1/posts", "/api/v1/posts/1", "/api/v1/users/me"])
def test_security_headers(server: Server, path: str) -> None:
    """Every answer has them, errors too."""
    headers = httpx.get(server.url + path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert policy.startswith("default-src 'none'")
    assert "server" not in headers
    # Only over TLS: a browser ignores it otherwise, and a proxy may have terminated it.
    assert "strict-transport-security" not in headers


@pytest.mark.parametrize("path", ["/", "/nope", "/api/v1/posts", "/api/v1/posts/1"])
def test_request_id(server: Server, path: str) -> None:
    """A sane id of the client's is used again; anything else is replaced, and never repeated."""
    for sane in ("abcdefgh", "trace-1.2_3", "A" * 64):
        assert httpx.get(server.url + path, headers={"X-Request-ID": sane}).headers["x-request-id"] == sane
    made = set()
    for other in ("", "short", "A" * 65, "with space", "<script>", "abcde\tfgh", "é" * 10):
        answer = httpx.get(server.url + path, headers={b"X-Request-ID": other.encode("latin-1")})
        assert re.fullmatch(r"[0-9a-f]{24}", answer.headers["x-request-id"])
        made.add(answer.headers["x-request-id"])
    assert len(made) == 7


def test_other_origins(server: Server) -> None:
    """A page of an allowed origin may read answers and their headers, another one may not."""
    url = f"{server.url}/api/v1/posts"
    allowed = httpx.get(url, headers={"Origin": "https://app.example.org"}).headers
    assert allowed["access-control-allow-origin"] == "https://app.example.org"
    assert {"ETag", "X-Position"} <= set(allowed["access-control-expose-headers"].split(", "))
    assert "access-control-allow-credentials" not in allowed
    for origin in ("https://evil.example.org", "null", "https://app.example.org.evil.example"):
        assert "access-control-allow-origin" not in httpx.get(url, headers={"Origin": origin}).headers
    asking = {"Origin": "https://app.example.org", "Access-Control-Request-Method": "PATCH"}
    asked = httpx.options(url, headers=asking | {"Access-Control-Request-Headers": "If-Match"})
    assert asked.status_code == 204
    assert "PATCH" in asked.headers["access-control-allow-methods"]


def test_every_code_is_documented() -> None:
    """docs/errors.md has a row for each status and code that a problem may have."""
    text = (ROOT / "docs" / "errors.md").read_text()
    for status, code in CODES.items():
        assert re.search(rf"^\| {status} \| `{code}` \|", text, re.MULTILINE), code
    assert "`duplicate`" in text
