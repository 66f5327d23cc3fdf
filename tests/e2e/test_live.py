"""Tables that follow what others do."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from typing import Any
from urllib.parse import quote

from bson import ObjectId
from playwright.sync_api import expect
from pymongo.database import Database

from tests.api.servers import User
from tests.e2e.browsers import Dashboard
from tests.e2e.conftest import Person


def where(*conditions: tuple[str, str, str]) -> str:
    """The address of the posts under these conditions."""
    return f"#/posts?where={quote(json.dumps(conditions))}"


def test_two_people_see_each_others_changes_within_a_second(
    visit: Person, alice: User, moderator: User, title: str
) -> None:
    """What one creates, changes and deletes, the other sees, each time; both ways, and in the log of events."""
    one, other = visit(alice.username).wait_until_live(), visit(moderator.username).wait_until_live()
    delays: list[float] = []

    def seen(person: Dashboard, text: str, rows: int) -> None:
        begun = time.monotonic()
        expect(person.row(text)).to_have_count(rows)
        delays.append(time.monotonic() - begun)

    for person in (one, other):
        person.go(where(("title", "contains", title)))
        expect(person.page.get_by_text("Nothing matches.")).to_be_visible()
    one.page.get_by_role("button", name="New post").click()
    one.sheet.get_by_label("Title").fill(title)
    one.sheet.get_by_label("Status").select_option("published")
    one.sheet.get_by_role("button", name="Create").click()
    seen(other, title, 1)
    other.row(title).click()
    other.sheet.get_by_label("Title").fill(f"{title} again")
    other.sheet.get_by_role("button", name="Save").click()
    seen(one, f"{title} again", 1)
    assert one.row(title).get_attribute("data-flash") in ("update-0", "update-1")
    alice.client.delete(f"/posts/{one.shown()[0][0]}")
    seen(other, title, 0)
    assert max(delays) < 1, delays
    for person in (one, other):
        expect(person.row(title)).to_have_count(0)
        events = person.page.get_by_role("list", name="Events").locator("li", has_text=title)
        expect(events.locator(".op")).to_have_text(["deleted", "changed", "created"])


def test_rows_enter_and_leave_a_filter(visit: Person, alice: User, title: str) -> None:
    """A row is there while its document matches; when it leaves it is seen leaving."""
    dashboard = visit(alice.username).wait_until_live()
    dashboard.go(where(("status", "is", "published"), ("title", "contains", title)))
    expect(dashboard.page.get_by_text("Nothing matches.")).to_be_visible()
    created = alice.client.post("/posts", json={"title": title}).json()
    alice.client.patch(f"/posts/{created['id']}", json={"status": "published"})
    expect(dashboard.row(title)).to_be_visible()
    assert dashboard.row(title).get_attribute("data-flash") in ("enter-0", "enter-1")
    dashboard.page.evaluate(
        """() => { window.seenLeaving = new Promise((resolve) => new MutationObserver(() => {
            const row = document.querySelector(".grid-row.leaving");
            if (row) resolve(row.textContent);
        }).observe(document.querySelector(".grid-body"), { subtree: true, attributes: true, childList: true })); }"""
    )
    alice.client.patch(f"/posts/{created['id']}", json={"status": "draft"})
    assert title in dashboard.page.evaluate("() => window.seenLeaving")
    expect(dashboard.page.locator(".grid-row", has_text=title)).to_have_count(0)
    words = dashboard.page.get_by_role("list", name="Events").locator("li", has_text=title).locator(".op")
    expect(words).to_have_text(["left", "entered"])


def test_conditions_are_made_and_removed_by_hand(visit: Person, alice: User, title: str) -> None:
    """The form makes a chip and an address, with which a reload and the way back show the same; a bad value is told."""
    for status in ("draft", "published"):
        alice.client.post("/posts", json={"title": f"{title} {status}", "status": status})
    dashboard = visit(alice.username).wait_until_live()
    dashboard.page.get_by_role("searchbox").fill(title)
    expect(dashboard.row(title)).to_have_count(2)
    dashboard.page.get_by_role("button", name="Filter").click()
    dashboard.page.get_by_label("Value").select_option("draft")
    dashboard.page.get_by_role("button", name="Add condition").click()
    expect(dashboard.row(title)).to_have_count(1)
    dashboard.page.reload()
    expect(dashboard.row(title)).to_have_count(1)
    dashboard.page.get_by_role("button", name="Remove: Status is draft").click()
    expect(dashboard.row(title)).to_have_count(2)
    dashboard.page.go_back()
    expect(dashboard.row(title)).to_have_count(1)
    dashboard.go(where(("revision", "gt", "many")))
    expect(dashboard.page.get_by_role("alert")).to_contain_text("filter")
    dashboard.go(where(("title", "contains", title)))
    expect(dashboard.row(title)).to_have_count(2)
    expect(dashboard.page.get_by_role("alert")).to_have_count(0)


def test_change_straight_in_the_database(
    visit: Person, alice: User, mongo: Database[dict[str, Any]], title: str
) -> None:
    """What another program writes appears as what the API writes; so do its changes and deletions."""
    dashboard = visit(alice.username).wait_until_live()
    dashboard.go(where(("title", "contains", title)))
    expect(dashboard.page.get_by_text("Nothing matches.")).to_be_visible()
    now = dt.datetime.now(dt.UTC)
    document = {
        "title": title,
        "slug": title.lower().replace(" ", "-"),
        "body": "",
        "tags": [],
        "status": "published",
        "author_id": ObjectId(alice.id),
        "created_at": now,
        "updated_at": now,
        "revision": 1,
    }
    added = mongo["posts"].insert_one(document).inserted_id
    expect(dashboard.row(title)).to_be_visible()
    mongo["posts"].update_one({"_id": added}, {"$set": {"title": f"{title} by hand"}})
    expect(dashboard.row(f"{title} by hand")).to_be_visible()
    mongo["posts"].delete_one({"_id": added})
    expect(dashboard.row(title)).to_have_count(0)


def test_order_columns_and_pages(visit: Person, alice: User, title: str) -> None:
    """Heads sort, a second click turns the order; columns come and go; pages are cut from what is live."""
    operations = [{"op": "create", "document": {"title": f"{title} {n:03}"}} for n in range(120)]
    assert alice.client.post("/posts/bulk", json={"operations": operations}).status_code == 200
    dashboard = visit(alice.username).wait_until_live()
    dashboard.go(where(("title", "contains", title)))
    dashboard.page.get_by_role("columnheader", name="Title").get_by_role("button").click()
    expect(dashboard.page.get_by_role("columnheader", name="Title")).to_have_attribute("aria-sort", "ascending")
    expect(dashboard.row(f"{title} 000")).to_be_visible()
    expect(dashboard.page.locator(".pages")).to_contain_text("100 of 120")
    dashboard.page.get_by_role("button", name="Next page").click()
    expect(dashboard.row(f"{title} 100")).to_be_visible()
    expect(dashboard.row(f"{title} 000")).to_have_count(0)
    dashboard.page.get_by_role("columnheader", name="Title").get_by_role("button").click()
    expect(dashboard.row(f"{title} 119")).to_be_visible()
    dashboard.page.get_by_role("button", name="Columns").click()
    dashboard.page.get_by_role("checkbox", name="Slug").check()
    expect(dashboard.page.get_by_role("columnheader", name="Slug")).to_be_visible()
    dashboard.page.get_by_role("checkbox", name="Tags").uncheck()
    expect(dashboard.page.get_by_role("columnheader", name="Tags")).to_have_count(0)


def test_log_that_is_paused(visit: Person, alice: User, title: str) -> None:
    """It stands still and counts; when it goes on, nothing is missing."""
    dashboard = visit(alice.username).wait_until_live()
    log = dashboard.page.get_by_role("list", name="Events")
    created = alice.client.post("/posts", json={"title": f"{title} 1"}).json()
    expect(log.locator("li", has_text=title)).to_have_count(1)
    dashboard.page.get_by_role("button", name="Pause").click()
    for number in range(2, 5):
        alice.client.patch(f"/posts/{created['id']}", json={"title": f"{title} {number}"})
    expect(dashboard.page.get_by_text("3 new", exact=True)).to_be_visible()
    expect(log.locator("li", has_text=title)).to_have_count(1)
    dashboard.page.get_by_role("button", name="Go on").click()
    expect(log.locator("li", has_text=title)).to_have_count(4)


def test_counts_at_the_side(visit: Person, alice: User, title: str) -> None:
    """Each class says how many of its documents the person may read, and keeps up."""
    dashboard = visit(alice.username).wait_until_live()
    count = (
        dashboard.page.get_by_role("navigation", name="Resources").get_by_role("link", name="Posts").locator(".count")
    )
    before = alice.client.get("/posts", params={"count": "exact"}).json()["total"]
    expect(count).to_have_text(f"{before:,}")
    alice.client.post("/posts", json={"title": title})
    expect(count).to_have_text(f"{before + 1:,}")


def test_meters(visit: Person, alice: User, title: str) -> None:
    """Changes are counted, and their delay is told, in numbers that a screen reader has, too."""
    dashboard = visit(alice.username).wait_until_live()
    created = alice.client.post("/posts", json={"title": title}).json()
    rate, delay = (dashboard.page.get_by_role("img", name=name) for name in ("Changes", "Delay"))
    deadline = time.monotonic() + 10
    while rate.get_attribute("aria-label") in ("Changes", "Changes: 0/s"):
        assert time.monotonic() < deadline
        alice.client.patch(f"/posts/{created['id']}", json={"title": f"{title} {time.perf_counter_ns()}"})
    expect(delay).to_have_attribute("aria-label", re.compile(r"Delay: \d+ (ms|s)"))
    assert "L" in (rate.locator("path").first.get_attribute("d") or "")
