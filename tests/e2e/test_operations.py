"""The page of operations, for admins."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.api.servers import ADMIN_EMAIL, Server, User
from tests.e2e.conftest import Person


def test_page_that_is_not_for_everybody(visit: Person, alice: User) -> None:
    """Others have no link to it, and its address shows them something else."""
    dashboard = visit(alice.username).wait_until_live()
    expect(dashboard.page.get_by_role("link", name="Operations")).to_have_count(0)
    dashboard.go("#/admin")
    dashboard.wait_until_live()
    expect(dashboard.page.get_by_role("heading", level=1)).to_have_text("Posts")


def test_disconnecting_a_user(visit: Person, site: Server) -> None:
    """An admin sees the connection and closes it; the person is told, and may come back."""
    user = site.register("dora")
    person = visit(user.username).wait_until_live()
    admin = visit(ADMIN_EMAIL).wait_until_live()
    admin.page.get_by_role("link", name="Operations").click()
    tiles = admin.page.locator(".tile")
    expect(tiles.filter(has_text="Workers").locator("dd")).to_have_text("1")
    row = admin.page.get_by_role("row", name=user.username)
    expect(row).to_contain_text("websocket")
    row.get_by_role("button", name=f"Disconnect {user.username}").click()
    expect(admin.page.get_by_role("status").filter(has_text="closed")).to_contain_text(user.username)
    expect(row).to_have_count(0)
    expect(person.page.get_by_role("alert")).to_contain_text("Disconnected by an admin")
    expect(person.state).not_to_have_attribute("data-state", "live")
    person.page.get_by_role("button", name="Connect again").click()
    person.wait_until_live()
    expect(admin.page.get_by_role("row", name=user.username)).to_be_visible()
