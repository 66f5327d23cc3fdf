"""Forms, tables and conditions of a class with every kind of field."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, expect

from tests.api.servers import User
from tests.e2e.browsers import Dashboard
from tests.e2e.conftest import Person


def stored(user: User, title: str) -> dict[str, Any]:
    """The one document of this label."""
    [found] = user.client.get("/kinds", params={"label": title}).json()["items"]
    document: dict[str, Any] = found
    return document


def press(dashboard: Dashboard, name: str) -> None:
    """Send the form; it closes."""
    dashboard.sheet.get_by_role("button", name=name, exact=True).click()
    expect(dashboard.sheet).to_have_count(0)


def field(place: Locator, label: str) -> Locator:
    """An input by its label, with or without the mark of what is needed."""
    return place.get_by_label(re.compile(rf"^{label}( \*)?$"))


def test_values_of_every_kind(visit: Person, alice: User, title: str) -> None:
    """What is written comes to be stored; what is emptied or taken out is gone, also out of objects; the rest stays."""
    dashboard = visit(alice.username, path="/#/kinds").wait_until_live()
    dashboard.page.get_by_role("button", name="New kind").click()
    sheet = dashboard.sheet
    field(sheet, "Label").fill(title)
    field(sheet, "Tame").select_option(label="no")
    field(sheet, "Colour").select_option(label="(empty)")
    field(sheet, "Level").select_option(label="10")
    field(sheet, "Prices").fill("1.10\n\n 2 ")
    field(sheet, "Home").check()
    field(sheet.get_by_role("group", name="Home"), "Street").fill("Long Lane")
    field(sheet, "Words").fill('{"gone": "a", "stays": "b"}')
    press(dashboard, "Create")
    made = stored(alice, title)
    assert (made["tame"], made["colour"], made["level"], made["prices"]) == (False, "", 10, ["1.10", "2"])
    assert (made["home"]["street"], made["den"]["street"]) == ("Long Lane", "Main")

    dashboard.row(title).click()
    expect(field(sheet, "Label")).to_have_value(title)
    press(dashboard, "Save")
    assert stored(alice, title) == made, "nothing was changed, so nothing is written"

    dashboard.row(title).click()
    field(sheet, "Tame").select_option(value="")
    field(sheet, "Words").fill('{"stays": "b", "new": "c"}')
    field(sheet.get_by_role("group", name="Home"), "Number").fill("7")
    press(dashboard, "Save")
    written = stored(alice, title)
    assert "tame" not in written
    assert written["words"] == {"stays": "b", "new": "c"}
    assert written["home"] == {"street": "Long Lane", "number": 7}

    dashboard.row(title).click()
    field(sheet, "Home").uncheck()
    press(dashboard, "Save")
    assert "home" not in stored(alice, title)


def test_faults_inside_fields(visit: Person, alice: User, title: str) -> None:
    """Each is said where it is: in a nested form at its field, of a list all; a number beyond all is no null."""
    dashboard = visit(alice.username, path="/#/kinds").wait_until_live()
    dashboard.page.get_by_role("button", name="New kind").click()
    sheet = dashboard.sheet
    field(sheet, "Label").fill(title)
    field(sheet, "Weight").fill("1e400")
    field(sheet, "Short").fill("a\nlong enough\nb")
    field(sheet, "Home").check()
    home = sheet.get_by_role("group", name="Home")
    field(home, "Number").fill("seven")
    sheet.get_by_role("button", name="Create").click()
    for wrong in (field(sheet, "Weight"), field(home, "Street"), field(home, "Number"), field(sheet, "Short")):
        expect(wrong).to_have_attribute("aria-invalid", "true")
    expect(field(sheet, "Weight")).to_be_focused()
    described = (field(sheet, "Short").get_attribute("aria-describedby") or "").split()
    faults = sheet.locator(f"#{described[-1]} span")
    expect(faults).to_have_count(2)
    expect(faults.first).to_contain_text("0: ")
    expect(faults.last).to_contain_text("2: ")
    field(sheet, "Weight").fill("1")
    field(sheet, "Short").fill("")
    field(home, "Street").fill("Long Lane")
    field(home, "Number").fill("13")
    sheet.get_by_role("button", name="Create").click()
    expect(home.locator("> .problem")).to_contain_text("no such house")
    expect(field(home, "Street")).not_to_have_attribute("aria-invalid", "true")
    assert alice.client.get("/kinds", params={"label": title}).json()["items"] == []


def test_time_with_a_part_missing(visit: Person, alice: User, title: str) -> None:
    """It is no time: neither does it take a stored one away, nor is it left out of a new document."""
    until = "2030-05-06T07:08:09.123Z"
    assert alice.client.post("/kinds", json={"label": title, "until": until}).status_code == 201
    dashboard = visit(alice.username, path="/#/kinds", timezone_id="UTC").wait_until_live()
    dashboard.row(title).click()
    sheet = dashboard.sheet
    time = field(sheet, "Until")
    expect(time).to_have_value("2030-05-06T07:08:09.123")
    time.press("Delete")
    expect(time).to_have_value("")
    sheet.get_by_role("button", name="Save", exact=True).click()
    expect(time).to_have_attribute("aria-invalid", "true")
    expect(sheet.get_by_text("This is not a time.")).to_be_visible()
    assert stored(alice, title)["until"] == until
    time.fill("")
    press(dashboard, "Save")
    assert "until" not in stored(alice, title)

    dashboard.page.get_by_role("button", name="New kind").click()
    field(sheet, "Label").fill(f"{title} new")
    time.press("1")
    sheet.get_by_role("button", name="Create", exact=True).click()
    expect(time).to_have_attribute("aria-invalid", "true")
    assert alice.client.get("/kinds", params={"label": f"{title} new"}).json()["items"] == []


def test_items_that_lines_do_not_keep(visit: Person, alice: User, title: str) -> None:
    """A list whose items have line breaks is written as JSON, and stays as it is when something else is changed."""
    answer = alice.client.post("/kinds", json={"label": title, "short": ["two\nlines", " x"]})
    assert answer.status_code == 201, answer.text
    dashboard = visit(alice.username, path="/#/kinds").wait_until_live()
    dashboard.row(title).click()
    short = field(dashboard.sheet, "Short")
    expect(short).to_have_value('[\n  "two\\nlines",\n  " x"\n]')
    short.fill('["two\\nlines", "three\\nlines"]')
    press(dashboard, "Save")
    assert stored(alice, title)["short"] == ["two\nlines", "three\nlines"]


@pytest.mark.parametrize(
    ("name", "value", "matches"),
    [
        ("level", "10", True),
        ("level", "1", False),
        ("colour", "", True),
        ("prices", "1.1", True),
        ("numbers", "5", True),
        ("tame", "true", False),
    ],
)
def test_conditions_by_kind(visit: Person, alice: User, title: str, name: str, value: str, matches: bool) -> None:
    """A condition asks for a value of the field's type, whatever it looks like in the address."""
    made = {"label": title, "level": 10, "colour": "", "prices": ["1.10"], "numbers": [4, 5], "tame": False}
    assert alice.client.post("/kinds", json=made).status_code == 201
    conditions = [["label", "is", title], [name, "has" if name in ("prices", "numbers") else "is", value]]
    dashboard = visit(alice.username, path=f"/#/kinds?where={quote(json.dumps(conditions))}").wait_until_live()
    expect(dashboard.page.locator(".filters + .problem")).to_be_hidden()
    expect(dashboard.row(title)).to_have_count(int(matches))


def test_every_column_and_every_condition_that_is_offered(visit: Person, alice: User, title: str) -> None:
    """All columns at once are a table; one begins with texts, too, though they need not be there."""
    assert alice.client.post("/kinds", json={"label": title}).status_code == 201
    dashboard = visit(alice.username, path="/#/kinds").wait_until_live()
    heads = dashboard.grid.get_by_role("columnheader")
    expect(heads.filter(has_text="Label")).to_be_visible()
    expect(dashboard.page.locator(".page-about")).to_have_text("One of each.")
    dashboard.page.get_by_role("button", name="Columns").click()
    boxes = dashboard.page.locator(".choices").get_by_role("checkbox")
    for place in range(boxes.count()):
        boxes.nth(place).check()
    expect(heads).to_have_count(boxes.count())
    dashboard.page.keyboard.press("Escape")
    dashboard.wait_until_live()
    expect(dashboard.row(title)).to_be_visible()
    dashboard.page.get_by_role("button", name="Filter").click()
    operators = dashboard.page.get_by_label("Condition", exact=True)
    dashboard.page.get_by_label("Field", exact=True).select_option("uid")
    assert operators.locator("option").all_inner_texts() == ["is", "is not", "is set", "is not set"]
    dashboard.page.get_by_label("Field", exact=True).select_option("blob")
    assert operators.locator("option").all_inner_texts() == ["is set", "is not set"]


def test_turned_phone(visit: Person, alice: User, title: str) -> None:
    """Rows stand below each other without gaps after the table has another shape."""
    for number in range(3):
        assert alice.client.post("/kinds", json={"label": f"{title} {number}"}).status_code == 201
    dashboard = visit(alice.username, path="/#/kinds", viewport={"width": 700, "height": 800}).wait_until_live()

    def expect_no_gaps(height: int) -> None:
        dashboard.page.wait_for_function(
            """height => {
                const rows = [...document.querySelectorAll(".grid-body .grid-row")];
                const tops = rows.map((row) => Math.round(row.getBoundingClientRect().top));
                tops.sort((one, other) => one - other);
                return tops.length > 2 && tops.slice(1).every((top, place) => top - tops[place] === height);
            }""",
            arg=height,
        )

    expect_no_gaps(58)
    dashboard.page.set_viewport_size({"width": 1_000, "height": 700})
    expect_no_gaps(34)
    dashboard.page.set_viewport_size({"width": 700, "height": 800})
    expect_no_gaps(58)
