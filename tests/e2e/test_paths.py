"""Classes whose routes are not where their names say, or that have none."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.api.servers import Server, User, wait_until
from tests.e2e.conftest import Person


def test_key_that_is_opened_and_deleted(visit: Person, alice: User, site: Server, title: str) -> None:
    """The sheet shows it; deleted there, it is refused from then on."""
    made = alice.client.post("/api-keys", json={"name": title, "scopes": ["posts:read"]}).json()
    program = site.client(key=made["key"])
    assert program.get("/posts").status_code == 200
    dashboard = visit(alice.username, path="/#/api_keys").wait_until_live()
    dashboard.row(title).click()
    expect(dashboard.sheet).to_contain_text(made["id"])
    dashboard.sheet.get_by_role("button", name="Delete").click()
    expect(dashboard.row(title)).to_have_count(0)
    # Who leaves sends what is due.
    dashboard.page.goto("about:blank")
    wait_until(lambda: program.get("/posts").status_code == 401)


def test_keys_without_websockets(visit: Person, alice: User, title: str) -> None:
    """Are a live table all the same."""
    dashboard = visit(alice.username)
    dashboard.page.add_init_script("delete window.WebSocket")
    dashboard.page.goto(f"{dashboard.server.url}/#/api_keys")
    dashboard.page.reload()
    dashboard.wait_until_live()
    assert alice.client.post("/api-keys", json={"name": title, "scopes": ["posts:read"]}).status_code == 201
    expect(dashboard.row(title)).to_be_visible()


def test_sessions_have_no_sheet(visit: Person, alice: User) -> None:
    """They are only looked at: neither a click nor a key opens one or takes it away."""
    dashboard = visit(alice.username, path="/#/sessions").wait_until_live()
    rows = dashboard.page.locator(".grid-body .grid-row")
    expect(rows).not_to_have_count(0)
    rows.first.click()
    expect(rows.first).to_have_class(re.compile("active"))
    for key in ("Enter", "Delete"):
        dashboard.page.keyboard.press(key)
    assert dashboard.page.locator("dialog[open], .toast").count() == 0


def test_deletion_that_finds_nothing(visit: Person, alice: User, title: str) -> None:
    """Is no success while the document is still there."""
    answer = alice.client.post("/posts", json={"title": title})
    dashboard = visit(alice.username, path=f'/#/posts?where=[["title","contains","{title}"]]').wait_until_live()
    dashboard.page.route(
        f"**/api/v1/posts/{answer.json()['id']}",
        lambda route: route.fulfill(status=404, json={"code": "not_found", "detail": "There is nothing here."}),
    )
    dashboard.row(title).click()
    dashboard.page.keyboard.press("Escape")
    dashboard.grid.focus()
    dashboard.page.keyboard.press("Delete")
    expect(dashboard.row(title)).to_have_count(0)
    expect(dashboard.page.get_by_role("alert")).to_contain_text(f"Not deleted: {title}")
    expect(dashboard.row(title)).to_be_visible()
