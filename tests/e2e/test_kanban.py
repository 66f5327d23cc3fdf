"""The example of a page that a customer would write, on an origin of its own."""

from __future__ import annotations

import functools
import http.server
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from tests.api.servers import PASSWORD, ROOT, Server, serving
from tests.e2e.browsers import PATIENCE_MS

EXAMPLES = ROOT / "examples"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    """Where the page is served, as `python3 -m http.server` would."""
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(EXAMPLES))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def boards(
    browser: Browser, site_settings: dict[str, str], address: str, tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[Server]:
    """A server with the example's class."""
    assert browser.is_connected()
    settings = site_settings | {
        "HEADWATER_DATABASE": f"board_{uuid.uuid4().hex[:12]}",
        "HEADWATER_DOCUMENTS": "documents.models,board",
        "HEADWATER_ALLOWED_ORIGINS": address,
    }
    with serving(tmp_path, free_port(), settings, EXAMPLES) as server:
        yield server


def test_cards_that_are_added_and_moved(browser: Browser, boards: Server, address: str) -> None:
    """What one person adds and drags to another column, the other sees; hostile titles are texts."""
    boards.register("ann")
    complaints: list[str] = []

    def opened() -> Page:
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{address}/kanban.html?server={boards.url}")
        page.get_by_label("Username").fill("ann")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("status")).to_have_text("live")
        return page

    one, other = opened(), opened()
    title = "<img src=x onerror=alert(1)> Mow the dyke"
    one.get_by_label("New card").fill(title)
    one.get_by_role("button", name="Add").click()
    expect(other.locator("#todo article")).to_have_text(title)
    other.locator("#todo article").drag_to(other.locator("#doing"))
    expect(one.locator("#doing article")).to_have_text(title)
    expect(one.locator("#todo article")).to_have_count(0)
    assert one.locator("article img").count() == 0

    # What the server refuses is not lost.
    said: list[str] = []

    def hear(dialog: Dialog) -> None:
        said.append(dialog.message)
        dialog.accept()

    one.on("dialog", hear)
    one.context.route("**/api/v1/cards", lambda route: route.fulfill(status=503, json={"detail": "Not now."}))
    one.get_by_label("New card").fill("Kept")
    with one.expect_event("dialog"):
        one.get_by_role("button", name="Add").click()
    expect(one.get_by_label("New card")).to_have_value("Kept")
    assert said == ["Not now."]
    one.context.unroute("**/api/v1/cards")
    one.get_by_role("button", name="Add").click()
    expect(one.get_by_label("New card")).to_have_value("")
    expect(other.locator("#todo article")).to_have_text("Kept")
    for page in (one, other):
        page.context.close()
    assert complaints == []
