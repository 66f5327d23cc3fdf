"""One real server for the tests of `api/`, and users of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from pymongo import MongoClient
from pymongo.database import Database

from tests.api.servers import ADMIN_EMAIL, PASSWORD, SECRET, Server, User, serving, wait_until

Starter = Callable[..., dict[str, str]]

#: The limits of the shared server.
MAX_BODY_BYTES, MAX_UPLOAD_BYTES = 64 * 1024, 32 * 1024 * 1024


@pytest.fixture(scope="session")
def server_settings(mongodb_url: str) -> Starter:
    """Call it for the settings of a server on the shared database server, with a database of its own."""

    def settings(**more: str) -> dict[str, str]:
        return {
            "HEADWATER_MONGODB_URL": mongodb_url,
            "HEADWATER_DATABASE": f"api_{uuid.uuid4().hex[:12]}",
            "HEADWATER_SECRET_KEY": SECRET,
            "HEADWATER_ADMIN_EMAIL": ADMIN_EMAIL,
            "HEADWATER_ADMIN_PASSWORD": PASSWORD,
            # All tests come from one address, and more often than people do.
            "HEADWATER_LOGIN_RATE_LIMIT": "100000/minute",
            "HEADWATER_RATE_LIMIT": "1000000/minute",
        } | {f"HEADWATER_{name.upper()}": value for name, value in more.items()}

    return settings


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory, server_settings: Starter, free_port: Callable[[], int]
) -> Iterator[tuple[Server, str]]:
    """The shared server and its database's name. Its log is judged when the last test is done."""
    settings = server_settings(
        allowed_origins="https://app.example.org",
        max_body_bytes=str(MAX_BODY_BYTES),
        max_upload_bytes=str(MAX_UPLOAD_BYTES),
    )
    with serving(tmp_path_factory.mktemp("server"), free_port(), settings) as server:
        yield server, settings["HEADWATER_DATABASE"]
        for path in ("/openapi.json", "/metrics", "/health/ready"):
            # Heard by `tests.secrecy` when all secrets of the run are known.
            httpx.get(f"{server.url}{path}", timeout=30)
        server.stop()
        server.check_log()


@pytest.fixture(scope="session")
def server(shared: tuple[Server, str]) -> Server:
    """The shared server."""
    return shared[0]


@pytest.fixture(scope="session")
def mongo(shared: tuple[Server, str], mongodb_url: str) -> Iterator[Database[dict[str, Any]]]:
    """The shared server's database, as another program sees it."""
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb_url)
    yield client[shared[1]]
    client.close()


@pytest.fixture
def anonymous(server: Server) -> httpx.Client:
    """A client without a token."""
    return server.client()


@pytest.fixture(scope="session")
def alice(server: Server) -> User:
    """A user."""
    return server.register_for_hours("alice")


@pytest.fixture(scope="session")
def bob(server: Server) -> User:
    """Another user."""
    return server.register_for_hours("bob")


@pytest.fixture(scope="session")
def moderator(server: Server, mongo: Database[dict[str, Any]]) -> User:
    """A user whom somebody made a moderator in the database."""
    user = server.register_for_hours("mo")
    mongo["users"].update_one({"username": "mo"}, {"$set": {"roles": ["user", "moderator"]}})
    wait_until(lambda: "moderator" in user.client.get("/users/me").json()["roles"])
    return user


@pytest.fixture
def title() -> str:
    """A title that no other test uses, to find one's own documents by."""
    return f"Title {uuid.uuid4().hex}"


@pytest.fixture
def post(alice: User, title: str) -> dict[str, Any]:
    """A published post of alice's."""
    answer = alice.client.post("/posts", json={"title": title, "body": "Water.", "tags": ["a"], "status": "published"})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


@pytest.fixture
def draft(alice: User, title: str) -> dict[str, Any]:
    """A draft of alice's."""
    answer = alice.client.post("/posts", json={"title": title})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document
