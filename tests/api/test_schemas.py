"""`/schemas`: what programs build their forms and tables from."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.api.servers import ADMIN_EMAIL, Server, User
from tests.api.test_errors import problem


@pytest.mark.parametrize("name", ["nope", "headwater_meta", "posts%2F", "$cmd", "Posts"])
def test_class_that_there_is_not(anonymous: httpx.Client, name: str) -> None:
    """404, internal collections included."""
    problem(anonymous.get(f"/schemas/{name}"), 404, "not_found")


def test_fields_that_the_caller_does_not_see(anonymous: httpx.Client, alice: User, server: Server) -> None:
    """Are in no form; their types are not told either."""
    admin = server.client(server.login(ADMIN_EMAIL))
    for client, seen in ((anonymous, False), (alice.client, False), (admin, True)):
        answer = client.get("/schemas/users")
        properties = answer.json()["public"]["properties"]
        assert ("email" in properties) is seen
        assert ("moderator" in answer.text) is seen
        assert {"id", "username"} <= set(properties)
        assert "password_hash" not in answer.text
        assert ("email" in answer.json()["sortable"]) is seen
        assert ("email" in answer.json()["order"]) is seen


def test_forms(anonymous: httpx.Client) -> None:
    """They are JSON Schemas, and the documents of the API are valid by them."""
    content = anonymous.get("/schemas/posts").json()
    for form in ("public", "create", "update"):
        Draft202012Validator.check_schema(content[form])
    create = Draft202012Validator(content["create"])
    assert create.is_valid({"title": "A"})
    assert not create.is_valid({"title": ""})
    assert not create.is_valid({"title": "A", "author_id": "65f000000000000000000000"})
    assert all(create.is_valid(example) for example in content["create"]["examples"])
    assert Draft202012Validator(content["update"]).is_valid({"body": None})


def test_document_by_its_form(anonymous: httpx.Client, post: dict[str, Any]) -> None:
    """What is read has the public form."""
    public = anonymous.get("/schemas/posts").json()["public"]
    assert [error.message for error in Draft202012Validator(public).iter_errors(post)] == []


def test_list_of_classes(anonymous: httpx.Client) -> None:
    """By name, with what each offers."""
    answer = anonymous.get("/schemas")
    assert answer.headers["cache-control"] == "private, no-cache"
    by_name = {item["name"]: item for item in answer.json()["items"]}
    assert list(by_name) == sorted(by_name)
    assert {"posts", "comments", "users"} <= set(by_name)
    posts = by_name["posts"]
    assert (posts["label"], posts["generic"], posts["live"]) == ("Post", True, True)
    assert posts["searchable"] == ["title", "body"]
    assert {"id", "title", "created_at"} <= set(posts["sortable"])
    assert "tags" not in posts["sortable"]
    assert posts["references"] == {"author_id": "users"}
    order = anonymous.get("/schemas/posts").json()["order"]
    assert set(order) == set(posts["sortable"])
    assert (order["id"], order["title"], order["created_at"]) == (["object id"], ["string"], ["date-time"])
    assert posts["reports"] == ["tags"]
    assert by_name["users"]["generic"] is False


def test_paths(anonymous: httpx.Client, server: Server) -> None:
    """Where a class says that its routes are, they are; a class without routes says nothing."""
    routes = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    items = anonymous.get("/schemas").json()["items"]
    paths = {item["name"]: item["path"] for item in items if "path" in item}
    assert paths["api_keys"] == "api-keys"
    for path in paths.values():
        assert {f"/api/v1/{path}", f"/api/v1/{path}/{{id}}"} <= set(routes)
    assert {item["name"] for item in items} - set(paths) == {"sessions"}
    assert anonymous.get("/schemas/api_keys").json()["path"] == "api-keys"
    assert not any(item["conditional"] for item in items)


def test_what_the_caller_may_do(anonymous: httpx.Client, alice: User, moderator: User, server: Server) -> None:
    """Operations and actions that are refused whatever the document is are not named; forms of actions are schemas."""
    expected = {
        anonymous: ["read"],
        alice.client: ["read", "create", "update", "delete"],
        moderator.client: ["read", "create", "update", "delete", "moderate"],
    }
    for client, may in expected.items():
        content = client.get("/schemas/posts").json()
        assert content["may"] == may
        assert [action["name"] for action in content["actions"]] == may[4:]
        for action in content["actions"]:
            Draft202012Validator.check_schema(action["form"])
            assert not Draft202012Validator(action["form"]).is_valid({"status": "published"})
    key = alice.client.post("/api-keys", json={"name": "reader", "scopes": ["posts:read"]}).json()["key"]
    assert server.client(key=key).get("/schemas/posts").json()["may"] == ["read"]
    assert server.client(key=key).get("/schemas/comments").json()["may"] == []


def test_methods(anonymous: httpx.Client) -> None:
    """Read only, as JSON."""
    for path in ("/schemas", "/schemas/posts"):
        assert anonymous.head(path).status_code == 200
        problem(anonymous.get(path, headers={"Accept": "text/csv"}), 406, "not_acceptable")
        assert anonymous.options(path).headers["allow"] == "GET, HEAD"
