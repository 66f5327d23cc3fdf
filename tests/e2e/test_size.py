"""A table of ten thousand rows that keep changing."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from playwright.sync_api import Browser, Page, expect
from pymongo import MongoClient
from pymongo.collection import Collection

from tests.api.servers import Server, serving, wait_until
from tests.e2e.conftest import Person

ROWS = 10_000
CHANGES_PER_SECOND = 100
SECONDS = 4
#: Above this a person feels a page hang.
LONGEST_TASK_MS = 100


@pytest.fixture
def large(
    site_settings: dict[str, str], browser: Browser, tmp_path: Path, free_port: Callable[[], int], own_mongodb_url: str
) -> Iterator[tuple[Server, Collection[dict[str, Any]], list[ObjectId]]]:
    """A server with ten thousand posts, their collection and their ids. It is its own, so no other test pays."""
    assert browser.is_connected()
    settings = site_settings | {
        "HEADWATER_MONGODB_URL": own_mongodb_url,
        "HEADWATER_DATABASE": f"large_{uuid.uuid4().hex[:12]}",
    }
    now = dt.datetime.now(dt.UTC)
    documents = [
        {
            "title": f"Post {number:05}",
            "slug": f"post-{number}",
            "body": "",
            "tags": ["many"],
            "status": "published",
            "author_id": ObjectId(),
            "created_at": now + dt.timedelta(milliseconds=number),
            "updated_at": now,
            "revision": 1,
        }
        for number in range(ROWS)
    ]
    with contextlib.closing(MongoClient[Any](own_mongodb_url)) as client:
        posts = client[settings["HEADWATER_DATABASE"]]["posts"]
        # Before a server has made the collection one that keeps images and is validated: that takes a while.
        ids = list(posts.insert_many(documents).inserted_ids)
        with serving(tmp_path, free_port(), settings) as server:
            yield server, posts, ids


def scrolled_up(page: Page) -> bool:
    """Scroll to the first row, again while turns of the wheel that the browser had not yet heard of move it away."""
    at_top: bool = page.evaluate(
        """() => {
            const grid = document.querySelector('.grid');
            const before = grid.scrollTop;
            grid.scrollTo(0, 0);
            return before === 0;
        }"""
    )
    return at_top


@contextlib.contextmanager
def traced(browser: Browser, page: Page) -> Iterator[list[float]]:
    """How long each task of the page kept the processor busy, in milliseconds; known when the block ends.

    Not how long it took: on a machine that does other things too, a task waits for its turn in the middle.
    """
    tasks: list[float] = []
    browser.start_tracing(page=page, categories=["toplevel", "devtools.timeline"])
    try:
        yield tasks
    finally:
        events = json.loads(browser.stop_tracing())["traceEvents"]
    names = [event for event in events if event["name"] == "thread_name"]
    mains = {(event["pid"], event["tid"]) for event in names if event["args"]["name"] == "CrRendererMain"}
    for event in events:
        if event["name"].endswith("RunTask") and (event["pid"], event["tid"]) in mains and "tdur" in event:
            tasks.append(event["tdur"] / 1000)


def test_ten_thousand_rows_at_a_hundred_changes_a_second(
    visit: Person, browser: Browser, large: tuple[Server, Collection[dict[str, Any]], list[ObjectId]]
) -> None:
    """While they change, move, and are scrolled through, no task of the page is long; and all changes arrive."""
    server, posts, ids = large
    dashboard = visit(server=server)
    dashboard.page.get_by_role("button", name="Look around").click()
    dashboard.go("#/posts?limit=10000&size=0&sort=-title")
    dashboard.wait_until_live()
    expect(dashboard.page.locator(".pages")).to_contain_text("of 10,000")
    assert dashboard.page.locator(".grid-row").count() < 60

    def change() -> None:
        begun = time.monotonic()
        for number in range(CHANGES_PER_SECOND * SECONDS):
            # Each moves its row to the top of the order, so the table changes where it is looked at.
            changed = {"$set": {"title": f"Z {number:05}", "tags": ["moved"]}}
            posts.update_one({"_id": ids[number * 7]}, changed)
            time.sleep(max(0.0, begun + (number + 1) / CHANGES_PER_SECOND - time.monotonic()))

    with traced(browser, dashboard.page) as tasks:
        writer = threading.Thread(target=change)
        writer.start()
        try:
            for step in itertools.count():
                dashboard.page.mouse.move(600, 400)
                dashboard.page.mouse.wheel(0, 4_000 if step % 8 < 4 else -4_000)
                if not writer.is_alive():
                    break
        finally:
            writer.join()
        newest = dashboard.row(f"Z {CHANGES_PER_SECOND * SECONDS - 1:05}")
        wait_until(lambda: scrolled_up(dashboard.page) and newest.is_visible())
    assert len(tasks) > SECONDS * 20
    assert max(tasks) < LONGEST_TASK_MS, sorted(tasks)[-10:]


def test_long_task_is_seen(visit: Person, browser: Browser) -> None:
    """What the other test measures by tells of a task that is too long."""
    page = visit().page
    with traced(browser, page) as tasks:
        # In a task of the page's own, not in one of the debugger's; so much work that no machine is done soon.
        page.evaluate(
            """() => new Promise((resolve) => setTimeout(() => {
                let sum = 0;
                for (let step = 0; step < 3e8; step += 1) sum += Math.sqrt(sum + step);
                resolve(sum);
            }))"""
        )
    assert max(tasks) > LONGEST_TASK_MS
