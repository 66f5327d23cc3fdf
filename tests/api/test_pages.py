"""The pages: everything they load comes from this server, and no script stands in the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api.servers import ROOT, Server

PAGES = ["/", "/docs", "/docs/live", "/redoc", "/reset-password"]
CLIENT = ("/client/headwater.js", "/client/headwater.d.ts")
STATIC = ROOT / "web" / "static"
OURS = sorted(str(path.relative_to(STATIC)) for path in STATIC.rglob("*") if path.suffix in (".js", ".css"))
LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "redoc": "spec-url"}


class Page(HTMLParser):
    """What a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.inline: list[str] = []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in LOADING and (target := given.get(LOADING[tag])):
            self.loaded.append(target)
        if tag == "a":
            self.links.append(given.get("href") or "")
        self._script = tag in ("script", "style")
        self.inline += [name for name in given if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._script = self._script and tag not in ("script", "style")


@pytest.mark.parametrize("path", PAGES)
def test_page_and_what_it_loads(server: Server, path: str) -> None:
    """All is here, with the right types, and nothing is inline."""
    answer = httpx.get(server.url + path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = Page(answer.text)
    assert page.inline == []
    assert page.loaded
    for target in page.loaded:
        assert urlsplit(target).netloc == "", target
        asset = httpx.get(server.url + target)
        assert asset.status_code == 200, target
        kind = asset.headers["content-type"].partition(";")[0]
        suffix = target.rpartition(".")[2]
        expected = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "json": "application/json"}
        assert kind == expected[suffix]


@pytest.mark.parametrize("path", PAGES)
def test_policy_of_a_page(server: Server, path: str) -> None:
    """Scripts come from this server only; no source is external; nobody may frame the page."""
    policy = httpx.get(server.url + path).headers["content-security-policy"]
    directives = {name: values for name, *values in (part.split() for part in policy.split(";") if part.strip())}
    assert directives["default-src"] == ["'none'"]
    assert directives["script-src"] == ["'self'"]
    assert directives["connect-src"] == ["'self'"]
    assert directives["frame-ancestors"] == ["'none'"]
    assert directives["base-uri"] == ["'none'"]
    allowed = {"'none'", "'self'", "data:", "blob:", "'unsafe-inline'"}
    assert {source for values in directives.values() for source in values} <= allowed
    assert [name for name, values in directives.items() if "'unsafe-inline'" in values] in ([], ["style-src"])


def test_links_of_the_start_page(server: Server) -> None:
    """Each one answers."""
    page = Page(httpx.get(f"{server.url}/").text)
    assert {"/docs", "/redoc", "/openapi.json"} <= set(page.links)
    for link in page.links:
        assert httpx.get(server.url + link).status_code == 200, link


#: What nobody fetches: XML's own names.
NAMES = {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("path", [f"/static/{name}" for name in OURS])
def test_our_scripts_name_no_other_host(server: Server, path: str) -> None:
    """Nothing that we wrote asks another server for anything, or makes markup out of texts."""
    answer = httpx.get(server.url + path)
    assert answer.status_code == 200
    assert set(re.findall(r"(?:https?:)?//[a-z][^\s\"'`]*", answer.text)) - NAMES == set()
    for hazard in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert hazard not in answer.text, hazard


@pytest.mark.parametrize(
    "path", [*PAGES, "/favicon.ico", "/asyncapi.json", "/static/theme.css", "/static/theme.js", *CLIENT]
)
def test_page_that_the_browser_has(server: Server, path: str) -> None:
    """It is asked for again each time, and 304 says that it is the same; another one is sent whole."""
    first = httpx.get(server.url + path)
    assert first.headers["cache-control"] == "no-cache"
    again = httpx.get(server.url + path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(server.url + path, headers={"If-None-Match": '"another"'}).content == first.content
    assert httpx.head(server.url + path).status_code == 200


def test_the_client_for_other_pages(server: Server) -> None:
    """Browsers take it as a module, tools find its types, and pages of allowed origins may load it."""
    headers = {"Origin": "https://app.example.org", "Accept-Encoding": "gzip"}
    answer = httpx.get(f"{server.url}/client/headwater.js", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == (ROOT / "web" / "headwater.js").read_bytes()
    types = httpx.get(answer.url.join(answer.headers["x-typescript-types"]))
    assert types.headers["content-type"] == "application/typescript; charset=utf-8"
    assert types.content == (ROOT / "web" / "headwater.d.ts").read_bytes()
    elsewhere = httpx.get(f"{server.url}/client/headwater.js", headers={"Origin": "https://evil.example.org"})
    assert "access-control-allow-origin" not in elsewhere.headers
