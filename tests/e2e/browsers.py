"""A Chromium of this machine, and what our pages do in it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.api.servers import PASSWORD, Server

#: How long a page may take for what it does at once, on a machine that does other things, too.
PATIENCE_MS = 60_000
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: No sandbox: tests may run as root, where Chromium has none. It only ever visits our own pages.
OPTIONS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


def chromium() -> str | None:
    """The path of a Chromium, or None: `HEADWATER_TEST_CHROMIUM`, or one that is installed."""
    named = os.environ.get("HEADWATER_TEST_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """A browser, until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


class Dashboard:
    """The dashboard in a context of its own: one person at one machine. Keeps what its pages complain about."""

    def __init__(self, context: BrowserContext, server: Server, path: str = "/") -> None:
        self.context = context
        self.server = server
        self.complaints: list[str] = []
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        self.page = self.open(path)

    def open(self, path: str = "/") -> Page:
        """Another tab."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.goto(f"{self.server.url}{path}")
        return page

    def _heard(self, kind: str, text: str) -> None:
        # The browser also tells of a server that is away, and of answers such as 422: no fault of a page.
        if kind == "error" and not re.search(r"Failed to load resource|WebSocket connection to|net::ERR_", text):
            self.complaints.append(f"console: {text}")

    def sign_in(self, username: str, password: str = PASSWORD) -> Dashboard:
        """Sign in by the form."""
        self.page.get_by_label("Username or email").fill(username)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()
        return self

    def wait_until_live(self) -> Dashboard:
        """Until the table shows a result, and the connection is live."""
        expect(self.state).to_have_attribute("data-state", "live")
        expect(self.page.locator(".results")).to_have_attribute("data-state", "live")
        return self

    @property
    def state(self) -> Locator:
        """What it says of its connection."""
        return self.page.locator(".state")

    @property
    def grid(self) -> Locator:
        """The table."""
        return self.page.get_by_role("grid")

    @property
    def sheet(self) -> Locator:
        """The form at the side."""
        return self.page.get_by_role("dialog")

    def row(self, text: str) -> Locator:
        """The rows that show a text and are not leaving."""
        return self.page.locator(".grid-body .grid-row:not(.leaving)", has_text=text)

    def go(self, address: str) -> None:
        """Go to a page of the dashboard, as a link would."""
        self.page.evaluate("address => { location.hash = address; }", address)

    def shown(self, fields: tuple[str, ...] = ("id",)) -> list[list[Any]]:
        """What the rows in sight show, from the top."""
        cells: list[list[str]] = self.page.evaluate(
            """() => [...document.querySelectorAll(".grid-body .grid-row:not(.leaving)")]
                .sort((one, other) => one.ariaRowIndex - other.ariaRowIndex)
                .map((row) => [row.dataset.id, ...[...row.children].map((cell) => cell.textContent)])"""
        )
        return [row[:1] if fields == ("id",) else row for row in cells]

    def close(self) -> None:
        """End it; fails when a page had something to complain about."""
        self.context.close()
        assert self.complaints == []
