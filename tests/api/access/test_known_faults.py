"""Faults that other document APIs are known for, and which test below `tests/` keeps each out.

| fault | tests |
|---|---|
| filter, sort, search or count on a hidden field | `api/test_users::test_queries_for_what_others_may_not_see` |
| ... for admins, on secrets | `api/test_users::test_queries_of_an_admin_for_secrets` |
| a dotted path around it | `documents/filters/test_parser::test_invisible_field_is_refused_like_an_unknown_one` |
| `$or` around it, or around a rule | `api/access/test_matrix::test_outcomes` |
| query that outlives its rights | `realtime/test_access::test_query_by_a_field_that_may_no_longer_be_seen` |
| event for lost access | `realtime/test_access::test_every_kind_of_write_for_every_principal_and_filter` |
| one subscriber's redaction reaching another | `realtime/test_access::test_hidden_fields_never_leave` |
| ... through a shared frame | `realtime/test_access::test_shared_view_is_encoded_once` |
| delete events to those who could not see the document | `api/access/test_matrix::test_outcomes` |
| a document that tells by its absence | `api/access/test_no_leaks::test_what_readers_cannot_see` |
| a socket that outlives its token | `api/test_websocket::test_token_that_expires` |
| ... its session | `api/test_websocket::test_session_that_ends` |
| ... its role | `realtime/test_access::test_change_of_roles_at_every_await_point` |
| ... its account | `realtime/test_access::test_deactivated_user` |
| ... its API key | `api/test_live_keys::test_narrowing_and_widening_an_open_connection` |
| mass assignment | `api/access/test_known_faults::test_mass_assignment` |
| ... by a patch | `api/test_patches::test_fields_that_the_server_sets` |
| operators or objects where a string is expected: login | `api/access/test_known_faults::test_operators_for_strings` |
| ... ids | `api/test_errors::test_malformed_id` |
| ... tickets | `api/test_tickets::test_query_string_that_is_no_ticket` |
| ... refresh tokens | `api/test_sessions::test_refresh_token_that_is_no_text` |
| JSON Patch from a hidden path | `documents/test_json_patches::test_a_hidden_path_is_one_that_does_not_exist` |
| a ticket used twice at the same moment | `api/test_tickets::test_ticket_that_is_used_twenty_times_at_once` |
| a refresh token used twice: one successor | `documents/test_sessions::test_race_of_many_refreshes` |
| ... the family revoked after | `api/test_sessions::test_stolen_refresh_token` |
| an author un-hiding a moderated post | `api/test_patches::test_an_author_cannot_unhide_a_post` |
| ... by an action | `api/test_actions::test_author_of_a_hidden_post` |
| a forged or foreign position in `since` | `api/test_event_stream::test_resuming_from_nowhere` |
| ... of another database | `documents/test_positions::test_a_position_of_another_database_or_secret_is_refused` |
| content retracted before the user's rights changed | `realtime/test_access::test_resuming` |
| ... while frames wait | `realtime/test_access::test_change_of_roles_while_live_and_lagging` |
| `alg: none`, changed signatures | `api/test_accounts::test_signatures_that_are_not_right` |
| HS/RS confusion, foreign `kid` | `api/test_token_keys::test_token_that_chooses_its_algorithm` |
| missing claims | `api/test_accounts::test_claims_that_are_not_right` |
| cross-site WebSocket | `api/test_websocket::test_page_of_another_origin` |
| ... with a ticket | `api/test_tickets::test_page_of_another_origin` |
| token in the query string | `api/test_websocket::test_token_in_the_address` |
"""

from __future__ import annotations

import ast
import re
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import PASSWORD, ROOT, Server, User
from tests.api.test_errors import places, problem

Mongo = Database[dict[str, Any]]


def test_index() -> None:
    """Each test that the table names is there."""
    named = re.findall(r"`([\w/]+)::(\w+)`", __doc__)
    assert len(named) == len(__doc__.split("|---|---|")[1].strip().splitlines())
    missing = [f"{path}::{name}" for path, name in named if name not in _tests_of(path)]
    assert missing == []


def _tests_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / f"{path}.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(
    "name", ["author_id", "revision", "_id", "id", "created_at", "updated_at", "owner_id", "roles"]
)
def test_mass_assignment(alice: User, post: dict[str, Any], bob: User, mongo: Mongo, name: str) -> None:
    """What the server sets, or does not know, is refused by name in a create, a replacement and a patch."""
    value = {"author_id": bob.id, "revision": 99, "created_at": "2001-01-01T00:00:00.000Z"}.get(name, bob.id)
    before = mongo.posts.find_one({"_id": ObjectId(post["id"])})
    body = {"title": post["title"], "slug": post["slug"], name: value}
    url = f"/posts/{post['id']}"
    for answer in (
        alice.client.post("/posts", json=body),
        alice.client.put(url, json=body),
        alice.client.patch(url, json={name: value}),
    ):
        assert places(answer) == [["body", name]]
    assert mongo.posts.find_one({"_id": ObjectId(post["id"])}) == before


@pytest.mark.parametrize("name", ["roles", "is_active", "password_hash", "_id", "username_key"])
def test_mass_assignment_of_accounts(server: Server, alice: User, anonymous: httpx.Client, name: str) -> None:
    """Nobody registers as an admin, nor becomes one."""
    value: Any = ["admin"] if name == "roles" else True
    body = {"username": f"mass.{name.strip('_')}", "email": f"mass.{name}@example.org", "password": PASSWORD}
    assert places(anonymous.post("/auth/register", json=body | {name: value})) == [["body", name]]
    assert places(alice.client.patch("/users/me", json={name: value})) == [["body", name]]
    assert "admin" not in alice.client.get("/users/me").json()["roles"]
    problem(
        anonymous.post("/auth/login", json={"username": body["username"], "password": PASSWORD}), 401, "unauthorized"
    )
    del server


@pytest.mark.parametrize("value", [{"$ne": None}, {"$gt": ""}, {"$regex": ".*"}, ["alice"], True, 1, None])
def test_operators_for_strings(anonymous: httpx.Client, alice: User, value: Any) -> None:
    """In the name, the password or a token, in any shape: refused in its place, and nobody is signed in."""
    right = {"username": alice.username, "password": PASSWORD}
    for name in right:
        assert places(anonymous.post("/auth/login", json=right | {name: value})) == [["body", name]]
    for path in ("/auth/refresh", "/auth/logout"):
        assert places(anonymous.post(path, json={"refresh_token": value})) == [["body", "refresh_token"]]
    form = {"grant_type": "password", "username[$ne]": "x", "password": PASSWORD}
    assert places(anonymous.post("/auth/login", data=form)) == [["body", "username"]]
