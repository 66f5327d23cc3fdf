"""Rate limits: who is counted together, what it costs, and what everybody is told."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI, Request
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from api.counters import Counters, parse_limits
from api.problems import install_problems
from api.rates import RateLimited, charge
from tests.api.conftest import Starter
from tests.api.servers import PASSWORD, Server, serving
from tests.api.test_errors import problem

LIMIT = 20
TOLD = {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"}


@pytest.fixture(scope="module")
def limited(
    server_settings: Starter, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Server]:
    """A server with a low limit, which believes what we say of where we are."""
    settings = server_settings(rate_limit=f"{LIMIT}/minute", allowed_origins="https://app.example.org")
    with serving(tmp_path_factory.mktemp("limited"), free_port(), settings) as server:
        yield server
        server.stop()
        server.check_log()


@pytest.fixture
def here(limited: Server) -> Iterator[httpx.Client]:
    """An anonymous client at an address of its own."""
    address = f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::1"
    with httpx.Client(base_url=limited.url, headers={"X-Forwarded-For": address}, timeout=30) as client:
        yield client


def remaining(answer: httpx.Response) -> int:
    """What an answer says is left."""
    return int(answer.headers["ratelimit-remaining"])


def test_limit_reached(here: httpx.Client) -> None:
    """429 says when to come back; pages and health go on."""
    answers = [here.get("/api/v1/posts") for _ in range(LIMIT + 2)]
    assert [answer.status_code for answer in answers] == [200] * LIMIT + [429] * 2
    assert [remaining(answer) for answer in answers] == [*reversed(range(LIMIT)), 0, 0]
    refused = answers[-1]
    problem(refused, 429, "too_many_requests")
    assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"]
    assert 0 < int(refused.headers["retry-after"]) <= 120
    for path in ("/", "/docs", "/health/live", "/health/ready", "/static/page.css", "/openapi.json"):
        free = here.get(path)
        assert free.status_code == 200, path
        assert TOLD.isdisjoint(free.headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/posts", 200),
        ("HEAD", "/api/v1/posts", 200),
        ("GET", "/api/v1/posts?limit=x", 422),
        ("GET", "/api/v1/nothing", 404),
        ("PUT", "/api/v1/posts", 405),
        ("OPTIONS", "/api/v1/posts", 204),
        ("POST", "/api/v1/posts", 400),
        ("POST", "/api/v1/auth/login", 400),
    ],
)
def test_every_answer_is_counted(here: httpx.Client, method: str, path: str, status: int) -> None:
    """And says so, errors too."""
    answer = here.request(method, path, content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert (answer.headers["ratelimit-limit"], remaining(answer)) == (str(LIMIT), LIMIT - 1)
    assert int(answer.headers["ratelimit-reset"]) > 0


def test_event_stream_is_counted(here: httpx.Client) -> None:
    """Once, when it begins."""
    with here.stream("GET", "/api/v1/posts", headers={"Accept": "text/event-stream"}) as answer:
        assert remaining(answer) == LIMIT - 1
    assert remaining(here.get("/api/v1/posts")) == LIMIT - 2


def test_addresses(here: httpx.Client) -> None:
    """One IPv6 network is one caller, another one is another."""
    own = here.headers["X-Forwarded-For"]
    assert remaining(here.get("/api/v1/posts")) == LIMIT - 1
    neighbour = own.removesuffix("1") + "ffff:2"
    assert remaining(here.get("/api/v1/posts", headers={"X-Forwarded-For": neighbour})) == LIMIT - 2
    elsewhere = {"X-Forwarded-For": f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::1"}
    assert remaining(here.get("/api/v1/posts", headers=elsewhere)) == LIMIT - 1
    # What a client writes in front of what the proxy appends is not believed.
    assert remaining(here.get("/api/v1/posts", headers={"X-Forwarded-For": f"192.0.2.1, {own}"})) == LIMIT - 3


def test_users(limited: Server, here: httpx.Client) -> None:
    """Count for themselves, wherever they are; tokens that are not valid count for the address."""
    names = [f"u{secrets.token_hex(5)}" for _ in range(2)]
    tokens = []
    for name in names:
        body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
        assert here.post("/api/v1/auth/register", json=body).status_code == 201
        signed_in = here.post("/api/v1/auth/login", json={"username": name, "password": PASSWORD})
        tokens.append({"Authorization": f"Bearer {signed_in.json()['access_token']}"})
    used = LIMIT - remaining(here.get("/api/v1/posts"))
    assert used == 5
    for token in tokens:
        assert remaining(here.get("/api/v1/posts", headers=token)) == LIMIT - 1
    elsewhere = tokens[0] | {"X-Forwarded-For": "192.0.2.77"}
    assert remaining(httpx.get(f"{limited.url}/api/v1/posts", headers=elsewhere)) == LIMIT - 2
    forged = here.get("/api/v1/posts", headers={"Authorization": "Bearer x.y.z"})
    problem(forged, 401, "unauthorized")
    assert remaining(forged) == LIMIT - used - 1
    # Who is signed in goes on where the anonymous are refused.
    while here.get("/api/v1/posts").status_code != 429:
        pass
    assert here.get("/api/v1/posts", headers=tokens[1]).status_code == 200


def test_keys(here: httpx.Client) -> None:
    """Count for themselves, and not for their owner; one that is not valid counts for the address."""
    name = f"u{secrets.token_hex(5)}"
    body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
    assert here.post("/api/v1/auth/register", json=body).status_code == 201
    token = here.post("/api/v1/auth/login", json={"username": name, "password": PASSWORD}).json()["access_token"]
    owner = {"Authorization": f"Bearer {token}"}
    made = here.post("/api/v1/api-keys", json={"name": "a", "scopes": ["posts:read"]}, headers=owner)
    key = {"X-API-Key": made.json()["key"]}
    assert [remaining(here.get("/api/v1/posts", headers=key)) for _ in range(2)] == [LIMIT - 1, LIMIT - 2]
    assert remaining(here.get("/api/v1/posts", headers=owner)) == LIMIT - 2
    anonymous = remaining(here.get("/api/v1/posts"))
    forged = here.get("/api/v1/posts", headers={"X-API-Key": "hw_" + "0" * 40})
    problem(forged, 401, "unauthorized")
    assert remaining(forged) == anonymous - 1


def test_handshakes(limited: Server, here: httpx.Client) -> None:
    """Are counted, and refused with 429."""
    url = f"ws://127.0.0.1:{limited.port}/api/v1/ws"
    address = {"X-Forwarded-For": here.headers["X-Forwarded-For"]}
    with connect(url, subprotocols=["headwater.v1"], additional_headers=address) as socket:  # type: ignore[list-item]
        assert "welcome" in str(socket.recv(10))
    assert remaining(here.get("/api/v1/posts")) == LIMIT - 2
    while here.get("/api/v1/posts").status_code != 429:
        pass
    with pytest.raises(InvalidStatus) as refused:
        connect(url, additional_headers=address)
    answer = refused.value.response
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert b"too_many_requests" in (answer.body or b"")


def test_page_of_another_origin(here: httpx.Client) -> None:
    """May read that it is refused, and when to come back."""
    origin = {"Origin": "https://app.example.org"}
    while (answer := here.get("/api/v1/posts", headers=origin)).status_code != 429:
        pass
    assert answer.headers["access-control-allow-origin"] == origin["Origin"]
    assert {"retry-after", *TOLD} <= set(answer.headers["access-control-expose-headers"].lower().split(", "))
    asking = origin | {"Access-Control-Request-Method": "PATCH"}
    assert here.options("/api/v1/posts", headers=asking).status_code == 204


async def test_bulk() -> None:
    """Costs one more for each ten operations; what would cost too much is refused before it is done."""
    app = FastAPI()
    install_problems(app)
    app.state.services = SimpleNamespace(counters=Counters(None, "x"), rate_limits=parse_limits("10/minute"))

    @app.post("/x/{operations}")
    async def bulk(operations: int, request: Request) -> str:
        await charge(request, operations)
        return "done"

    app.add_middleware(RateLimited, prefix="/x/")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        answers = [await client.post(f"/x/{operations}") for operations in (9, 10, 100, 20, 1000)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200, 429]
    assert [remaining(answer) for answer in answers] == [9, 7, 6, 3, 2]
    assert "retry-after" in answers[2].headers
