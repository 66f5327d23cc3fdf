"""Tables that heal: the server is killed, the network is away."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from pymongo import MongoClient

from tests.api.servers import Server, User, serving, wait_until
from tests.e2e.browsers import Dashboard
from tests.e2e.conftest import Person
from tests.e2e.outages import road_to

#: So tall that all rows are in sight.
TALL = {"width": 1280, "height": 2_600}
DOCUMENTS = 40
CHANGES = 500


def listed(client: httpx.Client, query: str) -> list[list[str]]:
    """What a table with this query must show: ids and titles, in order."""
    answer = client.get(f"/posts?{query}&sort=-created_at&limit=100&fields=title")
    return [[item["id"], item["title"]] for item in answer.json()["items"]]


def shown(dashboard: Dashboard) -> list[list[Any]]:
    """What it shows."""
    return [row[:2] for row in dashboard.shown(("id", "title"))]


def heals(dashboard: Dashboard, expected: Callable[[], list[list[str]]]) -> None:
    """The table comes to show what the API lists, and says that it is live."""
    expect(dashboard.state).to_have_attribute("data-state", "live", timeout=60_000)
    wait_until(lambda: shown(dashboard) == expected(), seconds=30)


def test_server_that_is_killed_and_started_again(
    visit: Person,
    alice: User,
    site_settings: dict[str, str],
    tmp_path: Path,
    free_port: Callable[[], int],
    title: str,
) -> None:
    """The table says that it is offline, and heals without a reload; what was written meanwhile is in it."""
    port = free_port()
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    query = f"title[contains]={title}"
    mongo: MongoClient[dict[str, Any]] = MongoClient(site_settings["HEADWATER_MONGODB_URL"])
    posts = mongo[site_settings["HEADWATER_DATABASE"]]["posts"]
    operations = [{"op": "create", "document": {"title": f"{title} {n:03}"}} for n in range(DOCUMENTS)]
    assert alice.client.post("/posts/bulk", json={"operations": operations}).status_code == 200
    with serving(tmp_path / "first", port, site_settings) as server:
        dashboard = visit(alice.username, server=server, viewport=TALL).wait_until_live()
        dashboard.go(f'#/posts?where=[["title","contains","{title}"]]')
        heals(dashboard, lambda: listed(alice.client, query))
        dashboard.page.evaluate("() => { window.sameLoad = true; }")
        server.process.kill()
        expect(dashboard.state).not_to_have_attribute("data-state", "live")
        posts.update_many(
            {"title": {"$regex": f"{title} 0[01]"}}, [{"$set": {"title": {"$concat": ["$title", " later"]}}}]
        )
        posts.delete_one({"title": f"{title} 030"})
        assert len(shown(dashboard)) == DOCUMENTS
    with serving(tmp_path / "second", port, site_settings):
        heals(dashboard, lambda: listed(alice.client, query))
        assert len(shown(dashboard)) == DOCUMENTS - 1
        assert dashboard.page.evaluate("() => window.sameLoad")
    mongo.close()


def test_network_that_is_away(
    visit: Person, site: Server, alice: User, title: str, request: pytest.FixtureRequest
) -> None:
    """500 changes are missed; when the network is back the table heals without a reload, and equals the database."""
    seconds: float = request.config.getoption("--offline-seconds")
    query = f"title[contains]={title}"
    operations = [{"op": "create", "document": {"title": f"{title} {n:03}"}} for n in range(DOCUMENTS)]
    created = alice.client.post("/posts/bulk", json={"operations": operations}).json()["results"]
    ids = [result["id"] for result in created]
    with road_to(site.port) as road:
        server = dataclasses.replace(site, port=road.port, clients=[])
        dashboard = visit(alice.username, server=server, viewport=TALL).wait_until_live()
        dashboard.go(f'#/posts?where=[["title","contains","{title}"]]')
        heals(dashboard, lambda: listed(alice.client, query))
        dashboard.page.evaluate("() => { window.sameLoad = true; }")
        dashboard.context.set_offline(True)
        road.cut()
        gone_at = time.monotonic()
        expect(dashboard.state).to_have_attribute("data-state", re.compile("offline|stale"))
        before = shown(dashboard)
        for at in range(0, CHANGES, 100):
            operations = [
                {"op": "update", "id": ids[n % DOCUMENTS], "patch": {"title": f"{title} {n:03} again"}}
                for n in range(at, at + 100)
            ]
            assert alice.client.post("/posts/bulk", json={"operations": operations}).status_code == 200
        alice.client.delete(f"/posts/{ids[0]}")
        alice.client.post("/posts", json={"title": f"{title} new"})
        # What is asked for is a time without a network.
        wait_until(lambda: time.monotonic() - gone_at > seconds, seconds=seconds + 20)
        assert shown(dashboard) == before
        road.mend()
        dashboard.context.set_offline(False)
        heals(dashboard, lambda: listed(alice.client, query))
        assert shown(dashboard) != before
        assert dashboard.page.evaluate("() => window.sameLoad")
        dashboard.page.goto("about:blank")
