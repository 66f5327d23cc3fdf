"""That everybody can use the pages: by keyboard, with a screen reader, on a phone, in both themes."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.api.servers import ADMIN_EMAIL, ROOT, User
from tests.e2e.conftest import Person

AXE = ROOT / "tests" / "node" / "node_modules" / "axe-core" / "axe.min.js"


def faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical, with the places."""
    # By the debugger's way, which the page's policy does not concern.
    page.evaluate(AXE.read_text())
    found: dict[str, Any] = page.evaluate("() => axe.run({ resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {node['target']} {node.get('any', [{}])[0].get('message', '') if node.get('any') else ''}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def fits(page: Page) -> bool:
    """Whether nothing sticks out at the side."""
    return bool(page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed; `make test` does it, where there is npm")
@pytest.mark.parametrize(("theme", "width"), [("light", 360), ("dark", 1_280)])
def test_serious_faults(visit: Person, alice: User, title: str, theme: str, width: int) -> None:
    """No page has one, nor sticks out: signing in, table, conditions, form with faults, operations, protocol."""
    alice.client.post("/posts", json={"title": title, "tags": ["river"], "status": "published"})
    dashboard = visit(color_scheme=theme, viewport={"width": width, "height": 800})
    page, found = dashboard.page, {}
    expect(page.get_by_label("Password")).to_be_visible()

    def look(name: str) -> None:
        # Faults of contrast in what only just fades in or out are none.
        page.evaluate("() => Promise.all(document.getAnimations().map((one) => one.finished.catch(() => null)))")
        found[name] = (faults(page), fits(page))

    look("sign in")
    dashboard.sign_in(ADMIN_EMAIL).wait_until_live()
    dashboard.go(f'#/posts?where=[["title","contains","{title}"]]')
    expect(dashboard.row(title)).to_be_visible()
    look("table")
    page.get_by_role("button", name="Filter").click()
    look("condition")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="New post").click()
    dashboard.sheet.get_by_role("button", name="Create").click()
    expect(dashboard.sheet.get_by_label("Title")).to_have_attribute("aria-invalid", "true")
    look("form with faults")
    page.keyboard.press("Escape")
    dashboard.row(title).click()
    expect(dashboard.sheet.get_by_label("Title")).to_have_value(title)
    look("document")
    page.keyboard.press("Escape")
    dashboard.go("#/kinds")
    page.get_by_role("button", name="New kind").click()
    dashboard.sheet.get_by_label("Home").check()
    look("form with a nested one")
    page.keyboard.press("Escape")
    dashboard.go("#/admin")
    expect(page.get_by_role("heading", name="Operations")).to_be_visible()
    expect(page.locator(".admin tbody tr").first).to_be_visible()
    look("operations")
    page.goto(f"{dashboard.server.url}/docs/live")
    expect(page.get_by_role("heading", name="Client to server")).to_be_visible()
    look("protocol")
    assert found == dict.fromkeys(found, ([], True))


def test_keyboard_alone(visit: Person, alice: User, title: str) -> None:
    """From the first key on: past the head, through the table, into a form and back, without a pointer."""
    for number in range(3):
        alice.client.post("/posts", json={"title": f"{title} {number}"})
    dashboard = visit()
    page, press = dashboard.page, dashboard.page.keyboard.press
    expect(page.get_by_label("Username or email")).to_be_focused()
    page.keyboard.type(alice.username)
    press("Tab")
    page.keyboard.type("heron-ford-bridge-57")
    press("Enter")
    dashboard.wait_until_live()
    dashboard.go(f'#/posts?sort=title&where=[["title","contains","{title}"]]')
    expect(dashboard.row(title)).to_have_count(3)
    # The former result, in its other order, stays until the new one is there.
    expect(page.locator('.grid-body [aria-rowindex="2"]')).to_contain_text(f"{title} 0")
    dashboard.grid.focus()
    press("ArrowDown")
    press("ArrowDown")
    active = dashboard.grid.get_attribute("aria-activedescendant")
    expect(page.locator(f"#{active}")).to_contain_text(f"{title} 1")
    press("End")
    press("Enter")
    expect(dashboard.sheet.get_by_label("Title")).to_have_value(f"{title} 2")
    press("Escape")
    expect(dashboard.sheet).to_have_count(0)
    expect(dashboard.grid).to_be_focused()
    press("Delete")
    expect(dashboard.row(title)).to_have_count(2)
    page.get_by_role("button", name="Undo").focus()
    press("Enter")
    expect(dashboard.row(title)).to_have_count(3)


def test_theme_that_was_chosen(visit: Person) -> None:
    """It wins over the system's, from the first paint on, and stays over a reload."""
    dashboard = visit(color_scheme="light")
    page = dashboard.page
    page.get_by_role("button", name="Dark theme").click()
    scheme = "() => getComputedStyle(document.documentElement).colorScheme"
    assert page.evaluate(scheme) == "dark"
    page.reload()
    assert page.evaluate(scheme) == "dark"
    expect(page.get_by_role("button", name="Light theme")).to_be_visible()


def test_pages_of_the_documentation(visit: Person) -> None:
    """They draw themselves under their policies, without a complaint, and the one leads to the other."""
    dashboard = visit(path="/docs")
    page = dashboard.page
    expect(page.locator(".opblock").first).to_be_visible()
    page.get_by_role("link", name="Live protocol").click()
    expect(page.locator("#message-subscribe")).to_contain_text("filter")
    expect(page.locator("#message-event")).to_contain_text("you receive")
