"""Query parameters that an operation does not have."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.servers import Server, User
from tests.api.test_answers import METHODS, address
from tests.api.test_errors import SOME_ID, places, problem


def test_every_operation(server: Server, alice: User) -> None:
    """Names a parameter that it does not have, as lists do, instead of ignoring it; and says so in the document."""
    paths: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    called = [
        (m, path, item[m]) for path, item in paths.items() if path.startswith("/api/") for m in item if m in METHODS
    ]
    assert len(called) >= 40
    for method, path, documented in called:
        assert "422" in documented["responses"], (method, path)
        # The fields of a distinct list, and the documents of an answer, come after the query string.
        url = server.url + address(path).replace(f"distinct/{SOME_ID}", "distinct/id")
        headers = {"Authorization": f"Bearer {alice.token}"}
        if method == "patch":
            headers["Content-Type"] = "application/merge-patch+json"
        content = b"{}" if method == "patch" else None
        answer = httpx.request(method, url, params={"nonsense": "1"}, headers=headers, content=content)
        assert ["query", "nonsense"] in places(answer), (method, path)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_known_one(alice: User, post: dict[str, Any], method: str) -> None:
    """Is accepted by HEAD as by GET, and an unknown one beside it is not."""
    url = f"/posts/{post['id']}?expand=author_id"
    assert alice.client.request(method, url).status_code == 200
    assert alice.client.request(method, f"{url}&nonsense=1").status_code == 422
    for path in ("/posts?limit=1", "/posts/distinct/tags?limit=1", "/schemas/posts", "/users?limit=1"):
        assert alice.client.request(method, path).status_code == 200, path


def test_several_of_them(alice: User, post: dict[str, Any]) -> None:
    """Are all named, each once, and nothing is done."""
    url = f"/posts/{post['id']}"
    refused = alice.client.patch(f"{url}?dry_run=1&b[]=2&dry_run=3", json={"title": "Other"})
    assert places(refused) == [["query", "dry_run"], ["query", "b[]"]]
    assert alice.client.get(url).json() == post


def test_body_in_the_query_string(alice: User) -> None:
    """Is told by the media type that is missing; beside a body, or with a name that no field has, by its names."""
    url = "/posts?title=One"
    problem(alice.client.post(url), 415, "unsupported_media_type")
    assert places(alice.client.post(f"{url}&nonsense=1")) == [["query", "title"], ["query", "nonsense"]]
    assert places(alice.client.post(url, json={"title": "One"})) == [["query", "title"]]


def test_credential_among_them(server: Server, alice: User, post: dict[str, Any]) -> None:
    """Is what the answer is about: who put one there must know that it was seen by others."""
    url = f"{server.url}/api/v1/posts/{post['id']}"
    problem(httpx.get(f"{url}?access_token={alice.token}"), 401, "unauthorized")
    problem(httpx.delete(f"{url}?a=1&api_key=hw_x&b=2"), 401, "unauthorized")
    assert places(httpx.post(f"{server.url}/api/v1/auth/register?token=x")) == [["query", "token"]]


def test_parameter_of_a_page(server: Server) -> None:
    """Is nobody's concern: browsers and probes add their own."""
    for path in ("/", "/docs", "/health/live", "/openapi.json"):
        assert httpx.get(f"{server.url}{path}?_=1").status_code == 200
