"""One browser and one server for the tests of `e2e/`, and people who use the dashboard."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser
from pymongo import MongoClient
from pymongo.database import Database

from tests.api.servers import ADMIN_EMAIL, PASSWORD, SECRET, Server, User, serving, wait_until
from tests.e2e.browsers import Dashboard, browsing, chromium

Person = Callable[..., Dashboard]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where no Chromium is, these tests are left out, and say so."""
    if chromium() is None:
        reason = "no Chromium is installed (apt install chromium), or name one: HEADWATER_TEST_CHROMIUM=/path/to/chrome"
        for item in items:
            if "e2e" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="package")
def site_settings(mongodb_url: str) -> dict[str, str]:
    """The settings of this package's server, with a database of its own."""
    return {
        "HEADWATER_MONGODB_URL": mongodb_url,
        "HEADWATER_DATABASE": f"e2e_{uuid.uuid4().hex[:12]}",
        "HEADWATER_DOCUMENTS": "documents.models,tests.e2e.classes",
        "HEADWATER_SECRET_KEY": SECRET,
        "HEADWATER_ADMIN_EMAIL": ADMIN_EMAIL,
        "HEADWATER_ADMIN_PASSWORD": PASSWORD,
        "HEADWATER_LOGIN_RATE_LIMIT": "100000/minute",
        "HEADWATER_RATE_LIMIT": "1000000/minute",
    }


@pytest.fixture(scope="package")
def site(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int], site_settings: dict[str, str]
) -> Iterator[Server]:
    """The server."""
    with serving(tmp_path_factory.mktemp("site"), free_port(), site_settings) as server:
        yield server
        server.stop()
        server.check_log()


@pytest.fixture(scope="package")
def mongo(site: Server, site_settings: dict[str, str]) -> Iterator[Database[dict[str, Any]]]:
    """Its database, as another program sees it."""
    assert site.process.poll() is None
    client: MongoClient[dict[str, Any]] = MongoClient(site_settings["HEADWATER_MONGODB_URL"])
    yield client[site_settings["HEADWATER_DATABASE"]]
    client.close()


@pytest.fixture(scope="package")
def browser(site: Server) -> Iterator[Browser]:
    """A browser. It runs in an event loop of its own, so what needs one to start must have started: the server has."""
    assert site.process.poll() is None
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="package")
def alice(site: Server) -> User:
    """A user."""
    return site.register("alice")


@pytest.fixture(scope="package")
def moderator(site: Server, mongo: Database[dict[str, Any]]) -> User:
    """A user whom somebody made a moderator in the database."""
    user = site.register("mo")
    mongo["users"].update_one({"username": "mo"}, {"$set": {"roles": ["user", "moderator"]}})
    wait_until(lambda: "moderator" in user.client.get("/users/me").json()["roles"])
    return user


@pytest.fixture
def visit(browser: Browser, site: Server) -> Iterator[Person]:
    """Call it for a dashboard in a browser context of its own: `visit("alice")`, or `visit()` for nobody."""
    opened: list[Dashboard] = []

    def open_one(username: str | None = None, path: str = "/", server: Server = site, **options: Any) -> Dashboard:
        options.setdefault("viewport", {"width": 1280, "height": 800})
        options.setdefault("locale", "en-GB")
        dashboard = Dashboard(browser.new_context(**options), server, path)
        opened.append(dashboard)
        return dashboard if username is None else dashboard.sign_in(username)

    yield open_one
    for dashboard in opened:
        dashboard.close()


@pytest.fixture
def title() -> str:
    """A title that no other test uses, to find one's own documents by."""
    return f"Title {uuid.uuid4().hex[:10]}"
