"""Signing in and out, and sessions that go on, end, and are shared by tabs."""

from __future__ import annotations

import datetime as dt
import json

import jwt
from playwright.sync_api import Route, expect

from api import Tokens, secret_key
from tests.api.servers import PASSWORD, SECRET, Server, User
from tests.e2e.conftest import Person

#: A token's life. It is renewed at its half.
SHORT = dt.timedelta(seconds=6)
RENEWALS = 3


def test_signing_in_and_out(visit: Person, alice: User) -> None:
    """A wrong password is told; a reload keeps the session; signing out ends it, also for the way back."""
    dashboard = visit()
    page = dashboard.page
    page.get_by_label("Username or email").fill(alice.username)
    page.get_by_label("Password").fill("wrong-password-1")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).not_to_be_empty()
    dashboard.sign_in(alice.username).wait_until_live()
    page.reload()
    dashboard.wait_until_live()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    # Nothing that outlives the tab, and no access token anywhere.
    assert page.evaluate("() => [Object.keys(localStorage), Object.keys(sessionStorage), document.cookie]") == [
        [], ["headwater.refresh"], "",
    ]  # fmt: skip
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    assert page.evaluate("() => sessionStorage.length") == 0
    page.reload()
    expect(page.get_by_label("Password")).to_be_visible()


def test_session_that_ends_elsewhere(visit: Person, site: Server) -> None:
    """Another session sets a new password: this one is led to the page to sign in, and told why."""
    user = site.register("erin")
    dashboard = visit(user.username).wait_until_live()
    passwords = {"current_password": PASSWORD, "new_password": f"{PASSWORD}-new"}
    site.secrets.append(passwords["new_password"])
    assert user.client.post("/users/me/password", json=passwords).is_success
    expect(dashboard.page.get_by_role("alert")).to_contain_text("session has ended")


def test_tab_that_is_duplicated(visit: Person, alice: User) -> None:
    """It begins with a copy of the refresh token; both go on, and signing out in one signs out both."""
    first = visit(alice.username).wait_until_live()
    stored = first.page.evaluate("() => sessionStorage.getItem('headwater.refresh')")
    first.context.add_init_script(
        f"if (!sessionStorage.length) sessionStorage.setItem('headwater.refresh', {json.dumps(stored)})"
    )
    second = first.open()
    expect(second.get_by_role("button", name="Sign out")).to_be_visible()
    # The second one has spent the token that the first one had, and told it of the next.
    tokens = [page.evaluate("() => sessionStorage.getItem('headwater.refresh')") for page in (first.page, second)]
    assert tokens[0] == tokens[1] != stored
    second.get_by_role("button", name="Sign out").click()
    expect(first.page.get_by_label("Password")).to_be_visible()


def test_tokens_that_expire_in_view(visit: Person, alice: User, title: str) -> None:
    """They are renewed again and again, and nobody notices: the state stays live, and no change is missed."""
    dashboard = visit()
    tokens = Tokens([secret_key(SECRET.encode())], SHORT)
    renewals: list[str] = []

    def shorten(route: Route) -> None:
        answer = route.fetch()
        content = answer.json()
        if answer.ok:
            renewals.append(route.request.url)
            session = jwt.decode(content["access_token"], options={"verify_signature": False})["sid"]
            token, _ = tokens.issue(alice.id, session, dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
            content |= {"access_token": token, "expires_in": SHORT.total_seconds()}
        route.fulfill(response=answer, json=content)

    dashboard.page.route("**/api/v1/auth/login", shorten)
    dashboard.page.route("**/api/v1/auth/refresh", shorten)
    dashboard.sign_in(alice.username).wait_until_live()
    dashboard.go(f'#/posts?where=[["title","contains","{title}"]]')
    dashboard.wait_until_live()
    dashboard.page.evaluate(
        """() => {
            const state = document.querySelector(".state");
            window.states = [];
            const watch = new MutationObserver(() => window.states.push(state.dataset.state));
            watch.observe(state, { attributes: true, attributeFilter: ["data-state"] });
        }"""
    )
    number = 0
    while len(renewals) <= RENEWALS:
        number += 1
        alice.client.post("/posts", json={"title": f"{title} {number}"})
        expect(dashboard.page.locator(".page-head .count")).to_have_text(str(number))
    assert set(dashboard.page.evaluate("() => window.states")) <= {"live"}
