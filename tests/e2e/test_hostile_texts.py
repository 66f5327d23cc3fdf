"""Documents, and addresses, that try to become script."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from bson import ObjectId
from playwright.sync_api import expect
from pymongo.database import Database

from tests.api.servers import User
from tests.e2e.conftest import Person

HOSTILE = [
    '<img src=x onerror="window.harmed=1">',
    "<script>window.harmed=1</script>",
    "\"><svg onload='window.harmed=1'>",
    "javascript:window.harmed=1",
    "</textarea></option></style><script>window.harmed=1</script>",
    "{{constructor.constructor('window.harmed=1')()}}${window.harmed=1}",
]
#: What only a text that became markup could have made.
MARKUP = "main img, main script, main style, main svg:not(.spark), main [onload], main [onerror], a[href^=javascript]"


def test_hostile_text_in_every_field(
    visit: Person, moderator: User, mongo: Database[dict[str, Any]], title: str
) -> None:
    """In cells, chips, events, forms, facts and toasts it is shown as it is, and nothing runs or loads.

    It is written straight into the database, where it may stand in fields that the API would refuse it for.
    """
    dashboard = visit(moderator.username).wait_until_live()
    requests: list[str] = []
    dashboard.page.on("request", lambda request: requests.append(request.url))
    dashboard.go("#/posts?columns=title,slug,tags,status,body,created_at,updated_at,revision&sort=-id")
    dashboard.wait_until_live()
    added = []
    for number, text in enumerate(HOSTILE):
        stored: dict[str, Any] = {}
        stored |= dict.fromkeys(("slug", "body", "status", "created_at", "updated_at", "revision"), text)
        stored |= {"title": f"{title} {number} {text}", "tags": [text], "author_id": ObjectId(moderator.id)}
        # As an admin may who has turned the validator off.
        added.append(mongo["posts"].insert_one(stored, bypass_document_validation=True).inserted_id)
    events = dashboard.page.get_by_role("list", name="Events")
    for number, text in enumerate(HOSTILE):
        mine = f"{title} {number}"
        expect(dashboard.row(mine)).to_contain_text(text)
        expect(events.locator("li", has_text=mine)).to_contain_text(text)
        dashboard.row(mine).click()
        for label, value in (("Title", f"{mine} {text}"), ("Body", text), ("Tags", text)):
            expect(dashboard.sheet.get_by_label(label)).to_have_value(value)
        dashboard.sheet.get_by_role("button", name="Delete").click()
        expect(dashboard.page.get_by_role("status").filter(has_text="Deleted")).to_contain_text(text)
        dashboard.page.get_by_role("button", name="Undo").click()
    dashboard.page.get_by_role("searchbox").fill(HOSTILE[0])
    expect(dashboard.page.locator(".page-head .count")).to_have_text("1")
    assert dashboard.page.evaluate("() => window.harmed") is None
    assert dashboard.page.locator(MARKUP).count() == 0
    assert [url for url in requests if "/api/v1/" not in url and "/static/" not in url] == []
    mongo["posts"].delete_many({"_id": {"$in": added}})


def test_hostile_address(visit: Person, moderator: User) -> None:
    """What stands in an address that somebody was sent is shown as text, or not at all."""
    dashboard = visit(moderator.username).wait_until_live()
    for text in HOSTILE:
        dashboard.go(f"#/{text}?words={text}&sort={text}&columns={text}&page={text}&limit={text}&where={text}")
        dashboard.go(f"#/posts?where={quote(json.dumps([['title', 'is', text]]))}&words={quote(text)}")
        expect(dashboard.page.get_by_role("button", name=f"Remove: Title is {text}", exact=True)).to_be_visible()
    assert dashboard.page.evaluate("() => window.harmed") is None
    assert dashboard.page.locator(MARKUP).count() == 0
