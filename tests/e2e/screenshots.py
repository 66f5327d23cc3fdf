"""The pictures of docs/images, made anew: `python -m tests.e2e.screenshots`.

Starts a server with an embedded database and the demo, and needs a Chromium. The pictures differ each time as the demo
does. They are reduced to 256 colours where `pngquant` is installed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect

from tests.api.servers import ADMIN_EMAIL, PASSWORD, ROOT, Server, environment, serving, wait_until
from tests.conftest import find_free_port
from tests.e2e.browsers import Dashboard, browsing, chromium

IMAGES = ROOT / "docs" / "images"
WIDE: Any = {"width": 1_280, "height": 760}
PHONE: Any = {"width": 390, "height": 760}
#: So long the demo runs before a picture, for a table and a log that tell something.
SETTLE_MS = 6_000
SEED = "7"
#: Of those, the demo begins with a few more.
COMMENTS = 170


@contextlib.contextmanager
def demonstrated(directory: Path) -> Iterator[Server]:
    """A server whose posts and comments keep changing."""
    settings = {
        "HEADWATER_DATA_DIR": str(directory / "data"),
        "HEADWATER_EMBEDDED_PORT": str(find_free_port()),
        "HEADWATER_ADMIN_EMAIL": ADMIN_EMAIL,
        "HEADWATER_ADMIN_PASSWORD": PASSWORD,
    }
    with serving(directory, find_free_port(), settings) as server:
        demo = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(ROOT / "main.py"), "demo", "--rate", "4", "--seed", SEED],
            cwd=directory,
            env=environment(settings),
            stdout=subprocess.DEVNULL,
        )
        try:
            # It fills the posts first, then the comments.
            api = server.client(server.login(ADMIN_EMAIL))
            wait_until(lambda: api.get("/comments", params={"count": "exact"}).json()["total"] > COMMENTS, seconds=120)
            yield server
        finally:
            demo.terminate()
            demo.wait(30)


def visited(browser: Browser, server: Server, theme: Any, size: Any, path: str = "/") -> Dashboard:
    """A dashboard that nobody has signed in to."""
    context = browser.new_context(viewport=size, color_scheme=theme, locale="en-GB", reduced_motion="no-preference")
    return Dashboard(context, server, path)


def take(dashboard: Dashboard, name: str) -> None:
    """Write one picture."""
    path = IMAGES / f"{name}.png"
    dashboard.page.screenshot(path=path)
    if quantize := shutil.which("pngquant"):
        subprocess.run([quantize, "--force", "--output", str(path), "256", str(path)], check=True)  # noqa: S603
    sys.stdout.write(f"{path.relative_to(ROOT)}  {path.stat().st_size // 1024} KiB\n")


def take_all(browser: Browser, server: Server) -> None:
    """Every page, in both themes and on a phone."""
    for theme, size, suffix in (("light", WIDE, "light"), ("dark", WIDE, "dark"), ("light", PHONE, "phone")):
        dashboard = visited(browser, server, theme, size)
        expect(dashboard.page.get_by_label("Password")).to_be_visible()
        take(dashboard, f"sign-in-{suffix}")
        dashboard.sign_in(ADMIN_EMAIL).wait_until_live()
        dashboard.page.wait_for_timeout(SETTLE_MS)
        take(dashboard, f"table-{suffix}")
        dashboard.go('#/posts?where=[["status","is","published"]]&sort=title')
        dashboard.wait_until_live()
        dashboard.page.locator(".grid-body .grid-row").nth(2).click()
        expect(dashboard.sheet.get_by_label("Title")).not_to_have_value("")
        take(dashboard, f"document-{suffix}")
        dashboard.page.keyboard.press("Escape")
        others = [visited(browser, server, theme, size).sign_in(ADMIN_EMAIL).wait_until_live() for _ in range(2)]
        dashboard.go("#/admin")
        expect(dashboard.page.locator(".admin tbody tr").nth(2)).to_be_visible()
        dashboard.page.wait_for_timeout(SETTLE_MS)
        take(dashboard, f"operations-{suffix}")
        for one in (*others, dashboard):
            one.close()
        protocol = visited(browser, server, theme, size, "/docs/live")
        expect(protocol.page.locator("#message-event")).to_be_visible()
        take(protocol, f"protocol-{suffix}")
        protocol.close()


def main() -> int:
    """Make all pictures; 1 where there is no browser."""
    if chromium() is None:
        sys.stderr.write("No Chromium is installed (apt install chromium).\n")
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, demonstrated(Path(directory)) as server, browsing() as browser:
        take_all(browser, server)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
