"""Creating, changing, moderating and deleting by the dashboard's forms."""

from __future__ import annotations

from playwright.sync_api import Route, expect

from tests.api.servers import User, wait_until
from tests.e2e.browsers import Dashboard
from tests.e2e.conftest import Person


def deed_of(user: User, title: str) -> str:
    """The id of a new document of a class that demands `If-Match`."""
    made: str = user.client.post("/deeds", json={"title": title}).json()["id"]
    return made


def note(user: User, deed: str) -> None:
    """Change one."""
    address = f"/deeds/{deed}"
    etag = user.client.get(address).headers["etag"]
    answer = user.client.patch(address, json={"note": "Theirs."}, headers={"If-Match": etag})
    assert answer.status_code == 200, answer.text


def opened(dashboard: Dashboard, title: str) -> Dashboard:
    """The dashboard with the sheet of the post of this title open."""
    dashboard.go(f'#/posts?where=[["title","contains","{title}"]]')
    dashboard.row(title).click()
    expect(dashboard.sheet.get_by_label("Title")).to_have_value(title)
    return dashboard


def post_of(user: User, title: str, **more: object) -> dict[str, str]:
    """A new post."""
    answer = user.client.post("/posts", json={"title": title, **more})
    assert answer.status_code == 201, answer.text
    document: dict[str, str] = answer.json()
    return document


def test_visitor_without_an_account(visit: Person, alice: User, title: str) -> None:
    """Sees what anybody may read, and no way to write."""
    post_of(alice, f"{title} hidden")
    shown = post_of(alice, f"{title} shown", status="published")
    dashboard = visit()
    dashboard.page.get_by_role("button", name="Look around").click()
    dashboard.wait_until_live()
    expect(dashboard.page.get_by_role("button", name="New post")).to_have_count(0)
    dashboard.row(shown["title"]).click()
    expect(dashboard.sheet).to_contain_text(shown["id"])
    expect(dashboard.sheet.get_by_role("textbox")).to_have_count(0)
    expect(dashboard.sheet.get_by_role("button", name="Delete")).to_have_count(0)
    assert dashboard.row(f"{title} hidden").count() == 0


def test_faults_stand_at_their_fields(visit: Person, alice: User, title: str) -> None:
    """What the server refuses is said at the field, tied to it for screen readers; mended, it is accepted."""
    taken = post_of(alice, title)
    dashboard = visit(alice.username).wait_until_live()
    dashboard.page.get_by_role("button", name="New post").click()
    field, slug = dashboard.sheet.get_by_label("Title"), dashboard.sheet.get_by_label("Slug")
    slug.fill("Not A Slug")
    dashboard.sheet.get_by_role("button", name="Create").click()
    for refused in (field, slug):
        expect(refused).to_have_attribute("aria-invalid", "true")
        problem = dashboard.page.locator(f"#{(refused.get_attribute('aria-describedby') or '').split()[-1]}")
        expect(problem).to_be_visible()
        expect(problem).not_to_be_empty()
    expect(field).to_be_focused()
    field.fill(f"{title} new")
    slug.fill(taken["slug"])
    dashboard.sheet.get_by_role("button", name="Create").click()
    expect(slug).to_have_attribute("aria-invalid", "true")
    expect(field).not_to_have_attribute("aria-invalid", "true")
    slug.fill(f"{taken['slug']}-new")
    dashboard.sheet.get_by_label("Tags").fill("river\n\n  spring ")
    dashboard.sheet.get_by_role("button", name="Create").click()
    expect(dashboard.sheet).to_have_count(0)
    items = alice.client.get("/posts", params={"slug": f"{taken['slug']}-new"}).json()["items"]
    assert [(item["title"], item["tags"], item["status"]) for item in items] == [
        (f"{title} new", ["river", "spring"], "draft")
    ]


def test_form_that_another_overtakes(visit: Person, alice: User, title: str) -> None:
    """Only what was changed is sent, so the other's fields stay; where both wrote, the person is asked first."""
    post = post_of(alice, title, status="published")
    dashboard = opened(visit(alice.username).wait_until_live(), title)
    body, tags = dashboard.sheet.get_by_label("Body"), dashboard.sheet.get_by_label("Tags")
    body.fill("Mine.")
    alice.client.patch(f"/posts/{post['id']}", json={"tags": ["theirs"]})
    expect(dashboard.page.locator(".notice")).to_contain_text("Tags")
    dashboard.sheet.get_by_role("button", name="Save").click()
    expect(dashboard.sheet).to_have_count(0)
    stored = alice.client.get(f"/posts/{post['id']}").json()
    assert (stored["body"], stored["tags"]) == ("Mine.", ["theirs"])

    opened(dashboard, title)
    tags.fill("mine")
    alice.client.patch(f"/posts/{post['id']}", json={"tags": ["theirs again"]})
    dashboard.sheet.get_by_role("button", name="Save").click()
    expect(dashboard.page.locator(".notice")).to_contain_text("Save again")
    assert alice.client.get(f"/posts/{post['id']}").json()["tags"] == ["theirs again"]
    dashboard.sheet.get_by_role("button", name="Save").click()
    expect(dashboard.sheet).to_have_count(0)
    assert alice.client.get(f"/posts/{post['id']}").json()["tags"] == ["mine"]


def test_typing_while_a_change_is_fetched(visit: Person, alice: User, title: str) -> None:
    """What was written between somebody's change and its arrival stays, and so does what the other wrote."""
    post = post_of(alice, title, status="published")
    dashboard = opened(visit(alice.username).wait_until_live(), title)
    body, address = dashboard.sheet.get_by_label("Body"), f"**/api/v1/posts/{post['id']}"
    held: list[Route] = []
    dashboard.page.route(address, lambda route: held.append(route), times=1)
    with dashboard.page.expect_request(address):
        alice.client.patch(f"/posts/{post['id']}", json={"tags": ["theirs"]})
    body.fill("Mine.")
    assert held
    for route in held:
        route.continue_()
    expect(dashboard.page.locator(".notice")).to_contain_text("What you wrote is kept")
    expect(body).to_have_value("Mine.")
    dashboard.sheet.get_by_role("button", name="Save").click()
    expect(dashboard.sheet).to_have_count(0)
    stored = alice.client.get(f"/posts/{post['id']}").json()
    assert (stored["body"], stored["tags"]) == ("Mine.", ["theirs"])


def test_form_that_is_read_anew(visit: Person, alice: User, moderator: User, title: str) -> None:
    """The focus stays in its field; the form of an action stays altogether."""
    post = post_of(alice, title, status="published")
    dashboard = opened(visit(alice.username).wait_until_live(), title)
    dashboard.sheet.get_by_label("Body").focus()
    acting = opened(visit(moderator.username).wait_until_live(), title)
    acting.sheet.get_by_role("button", name="Moderate").click()
    expect(acting.sheet.get_by_label("Reason")).to_be_visible()
    alice.client.patch(f"/posts/{post['id']}", json={"tags": ["theirs"]})
    expect(dashboard.sheet.get_by_label("Tags")).to_have_value("theirs")
    expect(dashboard.sheet.get_by_label("Body")).to_be_focused()
    expect(acting.page.locator(".notice")).to_contain_text("Somebody changed this document: Tags.")
    expect(acting.sheet.get_by_label("Reason")).to_be_visible()
    acting.sheet.get_by_role("button", name="Back").click()
    expect(acting.sheet.get_by_label("Tags")).to_have_value("theirs")
    expect(acting.page.locator(".notice")).to_be_hidden()


def test_deleting_and_undoing(visit: Person, alice: User, title: str) -> None:
    """The row goes at once; undone, the same document is there as if nothing had been; else it is gone for all."""
    kept, gone = post_of(alice, f"{title} kept"), post_of(alice, f"{title} gone")
    dashboard = visit(alice.username).wait_until_live()
    dashboard.go(f'#/posts?where=[["title","contains","{title}"]]')
    dashboard.row("kept").click()
    dashboard.sheet.get_by_role("button", name="Delete").click()
    expect(dashboard.row("kept")).to_have_count(0)
    dashboard.page.get_by_role("button", name="Undo").click()
    expect(dashboard.row("kept")).to_be_visible()
    assert alice.client.get(f"/posts/{kept['id']}").json() == kept
    dashboard.row("gone").click()
    dashboard.sheet.get_by_role("button", name="Delete").click()
    expect(dashboard.row("gone")).to_have_count(0)
    assert alice.client.get(f"/posts/{gone['id']}").status_code == 200
    # Who leaves does not take it back.
    dashboard.page.goto("about:blank")
    wait_until(lambda: alice.client.get(f"/posts/{gone['id']}").status_code == 404)


def test_deleting_on_the_page_of_another_class(visit: Person, alice: User, title: str) -> None:
    """What the sheet shows is deleted, whatever the page behind it shows."""
    dashboard = visit(alice.username).wait_until_live()
    post = post_of(alice, title)
    line = dashboard.page.locator(".log-list").get_by_role("button", name=title)
    expect(line).to_be_visible()
    dashboard.go("#/kinds")
    expect(dashboard.page.get_by_role("button", name="New kind")).to_be_visible()
    line.click()
    expect(dashboard.sheet.get_by_label("Title")).to_have_value(title)
    dashboard.sheet.get_by_role("button", name="Delete").click()
    expect(dashboard.page.get_by_role("button", name="Undo")).to_be_visible()
    # Who leaves sends what is due.
    dashboard.page.goto("about:blank")
    wait_until(lambda: alice.client.get(f"/posts/{post['id']}").status_code == 404)


def test_acting_under_a_condition(visit: Person, alice: User, title: str) -> None:
    """In a class that demands `If-Match`: what somebody changed meanwhile is acted on when the person says so again."""
    deed = deed_of(alice, title)
    dashboard = visit(alice.username, path="/#/deeds").wait_until_live()
    dashboard.row(title).click()
    dashboard.sheet.get_by_role("button", name="End").click()
    reason = dashboard.sheet.get_by_label("Reason")
    reason.fill("done")
    note(alice, deed)
    expect(dashboard.page.locator(".notice")).to_contain_text("Note")
    dashboard.sheet.get_by_role("button", name="End").click()
    expect(dashboard.page.locator(".notice")).to_contain_text("Press again")
    expect(reason).to_have_value("done")
    assert alice.client.get(f"/deeds/{deed}").json()["title"] == title
    dashboard.sheet.get_by_role("button", name="End").click()
    expect(dashboard.sheet).to_have_count(0)
    assert alice.client.get(f"/deeds/{deed}").json()["title"] == f"{title} ended: done"


def test_deleting_under_a_condition(visit: Person, alice: User, title: str) -> None:
    """From the sheet and from the table it goes; what somebody has changed meanwhile stays, and that is said."""
    sheet, table, changed = (deed_of(alice, f"{title} {name}") for name in ("sheet", "table", "changed"))
    dashboard = visit(alice.username, path="/#/deeds").wait_until_live()
    for name in ("table", "changed"):
        dashboard.row(f"{title} {name}").click()
        expect(dashboard.sheet.get_by_label("Title")).to_have_value(f"{title} {name}")
        dashboard.page.keyboard.press("Escape")
        dashboard.grid.focus()
        dashboard.page.keyboard.press("Delete")
        expect(dashboard.row(f"{title} {name}")).to_have_count(0)
    dashboard.row(f"{title} sheet").click()
    dashboard.sheet.get_by_role("button", name="Delete").click()
    note(alice, changed)
    expect(dashboard.page.get_by_role("alert")).to_contain_text(
        f"Not deleted: {title} changed. The document has changed"
    )
    expect(dashboard.row(f"{title} changed")).to_be_visible()
    gone = [f"/deeds/{deed}" for deed in (sheet, table)]
    wait_until(lambda: all(alice.client.get(address).status_code == 404 for address in gone))


def test_moderation(visit: Person, alice: User, moderator: User, title: str) -> None:
    """Moderators have the action, with its reason; without one it is refused at its field. Others do not see it."""
    post = post_of(alice, title, status="published")
    author = opened(visit(alice.username).wait_until_live(), title)
    expect(author.sheet.get_by_role("button", name="Delete")).to_be_visible()
    expect(author.sheet.get_by_role("button", name="Moderate")).to_have_count(0)
    dashboard = opened(visit(moderator.username).wait_until_live(), title)
    dashboard.sheet.get_by_role("button", name="Moderate").click()
    dashboard.sheet.get_by_label("Status").select_option("hidden")
    dashboard.sheet.get_by_role("button", name="Moderate").click()
    expect(dashboard.sheet.get_by_label("Reason")).to_have_attribute("aria-invalid", "true")
    dashboard.sheet.get_by_label("Reason").fill("It gives away an address.")
    dashboard.sheet.get_by_role("button", name="Moderate").click()
    expect(dashboard.sheet).to_have_count(0)
    assert alice.client.get(f"/posts/{post['id']}").json()["status"] == "hidden"
    expect(dashboard.row(title)).to_contain_text("hidden")
