"""`/metrics`: who may ask, what is told, and that it is told of all workers."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Counter

from api.metrics import Grown, Metrics
from realtime import DELAY_BOUNDS, Delays
from tests.api.conftest import Starter
from tests.api.scrapes import Samples, counts, scrape, value
from tests.api.servers import Server, User, live, refused_start, serving, wait_until
from tests.api.test_errors import problem
from tests.api.test_workers import alive
from tests.redis_server import running_redis

DOCS = Path(__file__).parent.parent.parent / "docs" / "operations.md"
TOKEN = "the-token-of-prometheus-57"  # noqa: S105 - not used outside the tests


def test_stranger(server: Server) -> None:
    """Whoever is not on this machine is refused, also through a proxy that is."""
    answer = httpx.get(f"{server.url}/metrics", headers={"X-Forwarded-For": "203.0.113.9"})
    problem(answer, 403, "forbidden")
    answer = httpx.get(f"{server.url}/metrics", headers={"X-Forwarded-For": "127.0.0.1, 203.0.113.9"})
    problem(answer, 403, "forbidden")


def test_loopback(server: Server) -> None:
    """A Prometheus on this machine is answered, in the format that it asks for."""
    answer = httpx.get(f"{server.url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"
    asked = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = httpx.get(f"{server.url}/metrics", headers=asked)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    assert httpx.post(f"{server.url}/metrics").status_code == 405
    for address in ("::1", "::ffff:127.0.0.1", "127.0.0.9"):
        assert httpx.get(f"{server.url}/metrics", headers={"X-Forwarded-For": address}).status_code == 200


def test_route_templates(server: Server, post: dict[str, Any]) -> None:
    """Requests are counted by the template of their path: what a client chooses is in no label."""
    before = scrape(server)
    for path in (f"posts/{post['id']}", f"posts/{'f' * 24}", "posts/no-such-id", "posts", "users/me"):
        server.client().get(f"/{path}")
    assert httpx.request("PROPFIND", f"{server.url}/api/v1/posts").status_code == 405
    for path in ("/otter-weir", "/static/otter-weir", "//api/v1//otter-weir"):
        httpx.get(f"{server.url}{path}")
    after = scrape(server)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    one = "/api/v1/posts/{id}"
    assert grown("http_requests_total", method="GET", route=one, status="200") == 1
    assert grown("http_requests_total", method="GET", route=one, status="404") == 1
    assert grown("http_requests_total", method="GET", route=one, status="422") == 1
    assert grown("http_request_duration_seconds_count", method="GET", route=one) == 3
    assert grown("http_requests_total", method="GET", route="/api/v1/posts", status="200") == 1
    assert grown("http_requests_total", method="GET", route="/api/v1/users/me", status="401") == 1
    assert grown("http_requests_total", method="other", route="/api/v1/posts", status="405") == 1
    assert grown("http_requests_total", method="GET", route="unmatched", status="404") == 2
    assert grown("http_requests_total", method="GET", route="/static/", status="404") == 1
    told = httpx.get(f"{server.url}/metrics").text
    assert post["id"] not in told
    assert "otter" not in told
    assert "PROPFIND" not in told


def test_live_connection(server: Server, alice: User, title: str) -> None:
    """Connections, subscriptions, views and deliveries are told while they are there, and the delay to the socket."""
    before = scrape(server)

    def becomes(expected: float, name: str, **labels: str) -> None:
        wait_until(lambda: value(scrape(server), name, **labels) - value(before, name, **labels) == expected)

    with live(server, alice.token) as socket:
        socket.subscribe("1", filter={"title": title})
        socket.subscribe("2", filter={"title": title, "status": "published"})
        becomes(1, "connections", transport="websocket")
        becomes(2, "subscriptions")
        becomes(2, "views")
        answer = alice.client.post("/posts", json={"title": title, "status": "published"})
        assert answer.status_code == 201
        socket.receive()
        socket.receive()
        becomes(2, "deliveries_total")
        becomes(2, "commit_to_client_seconds_count")
    becomes(0, "connections", transport="websocket")
    becomes(0, "subscriptions")
    becomes(0, "views")
    becomes(1, "connections_opened_total", transport="websocket")
    after = scrape(server)
    assert 0 <= value(after, "commit_to_client_seconds_sum") - value(before, "commit_to_client_seconds_sum") < 60
    assert value(after, "feed_mode", mode="local") == 1
    assert value(after, "workers") == 1
    assert value(after, "pool_connections", pool="mongodb", state="idle") >= 1
    assert value(after, "event_loop_lag_seconds_count") > 0
    assert value(after, "process_resident_memory_bytes") > 10_000_000


def test_event_stream(server: Server, alice: User) -> None:
    """A stream counts as a connection and a request, and its length is nobody's answering time."""
    labels = {"method": "GET", "route": "/api/v1/posts"}
    before = scrape(server)
    with alice.client.stream("GET", "/posts", headers={"Accept": "text/event-stream"}) as stream:
        # Kept: the end of the iterator is the end of the stream.
        lines = stream.iter_lines()
        next(lines)
        assert value(scrape(server), "connections", transport="event_stream") == 1
    wait_until(lambda: value(scrape(server), "connections", transport="event_stream") == 0)
    after = scrape(server)
    assert value(after, "http_requests_total", **labels, status="200") == (
        value(before, "http_requests_total", **labels, status="200") + 1
    )
    name = "http_request_duration_seconds_count"
    assert value(after, name, **labels) == value(before, name, **labels)


def test_resets_and_closings(server: Server, alice: User) -> None:
    """What clients lose is counted by its reason."""
    before = scrape(server)
    with live(server, alice.token) as socket:
        socket.send(type="subscribe", id="1", resource="posts", since={"view": "vOther", "position": "x"})
        socket.receive_until("ready")
        socket.socket.send(b"binary")
        assert socket.close_code() == 4500
    after = scrape(server)
    for name, labels in (
        ("resets_total", {"reason": "history_lost"}),
        ("connections_closed_total", {"code": "bad_message"}),
    ):
        assert value(after, name, **labels) == value(before, name, **labels) + 1


def test_short_token(tmp_path: Path, server_settings: Starter) -> None:
    """A token that can be guessed is refused at the start."""
    code, output = refused_start(tmp_path, server_settings(metrics_token="guess-me"))  # noqa: S106
    assert code == 1
    assert "HEADWATER_METRICS_TOKEN is shorter" in output


@pytest.fixture(scope="module")
def workers(
    tmp_path_factory: pytest.TempPathFactory, server_settings: Starter, free_port: Callable[[], int]
) -> Iterator[Server]:
    """Two workers with Redis, for a Prometheus with a token. One of them is killed at the end."""
    folder = tmp_path_factory.mktemp("workers")
    with running_redis(folder, free_port()) as redis:
        settings = server_settings(
            workers="2",
            redis_url=redis.url,
            metrics_token=TOKEN,
            login_rate_limit="3/hour",
            trusted_hosts="127.0.0.1",
        )
        with serving(folder, free_port(), settings) as server:
            server.secrets.append(TOKEN)
            wait_until(lambda: len(alive(server)) == 2)
            yield server


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer the-token-of-prometheus-58", f"Basic {TOKEN}", "Bearer é"]
)
def test_wrong_token(workers: Server, given: str | None) -> None:
    """With a token set it is needed from everywhere, this machine included."""
    headers = {} if given is None else {"Authorization": given.encode()}
    answer = httpx.get(f"{workers.url}/metrics", headers=headers)  # type: ignore[arg-type]
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "headwater_" not in answer.text


def test_token_from_elsewhere(workers: Server) -> None:
    """With the token a Prometheus may be anywhere."""
    assert scrape(workers, TOKEN, **{"X-Forwarded-For": "203.0.113.9"})


def test_address_that_prometheus_names(workers: Server) -> None:
    """It says which machine it scrapes, and not the host that people know; nobody else may."""
    pod = {"Host": "10.1.2.3:8000"}
    assert scrape(workers, TOKEN, **pod)
    problem(httpx.get(f"{workers.url}/api/v1/posts", headers=pod), 400, "bad_request")


def test_refused_sign_ins(workers: Server) -> None:
    """What the throttle refuses is counted, whichever worker refused it."""
    body = {"username": "nobody-at-all", "password": "wrong-password-17"}
    statuses = [workers.client().post("/auth/login", json=body).status_code for _ in range(8)]
    assert statuses[:3] == [401] * 3
    # Not the rest of them, at the turn of an hour.
    refused = statuses.count(429)
    assert refused > 0
    wait_until(lambda: value(scrape(workers, TOKEN), "rate_limit_refusals_total", limit="sign_in") == refused)


def test_worker_killed(workers: Server) -> None:
    """Each worker tells of both. One that is killed and replaced takes nothing back that was counted, and no file of
    it stays."""
    wait_until(lambda: all_told(scrape(workers, TOKEN)))
    for _ in range(40):
        assert workers.client().get("/posts").status_code == 200
    victim, other = alive(workers)
    before = scrape(workers, TOKEN)
    labels = {"method": "GET", "route": "/api/v1/posts", "status": "200"}
    assert value(before, "http_requests_total", **labels) == 40
    assert value(before, "feed_mode", mode="relayed") == 2
    assert value(before, "relays") == 1
    assert value(before, "pool_connections", pool="redis_log", state="in_use") >= 2
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(alive(workers)) == 2 and all_told(scrape(workers, TOKEN)))
    after = scrape(workers, TOKEN)
    gone_back = {key: (old, after.get(key)) for key, old in counts(before).items() if after.get(key, 0) < old}
    assert gone_back == {}
    assert value(after, "http_requests_total", **labels) == 40
    folder = folder_of(other)
    owners = {int(re.findall(r"_(\d+)\.db$", name)[0]) for name in os.listdir(folder) if name.endswith(".db")}
    assert owners == {0, *alive(workers)}
    workers.stop()
    assert not folder.exists()


def all_told(samples: Samples) -> bool:
    """Whether two workers have told of themselves, and one of them is the relay."""
    return value(samples, "workers") == 2 and value(samples, "relays") == 1


def folder_of(pid: int) -> Path:
    """Where a worker keeps its figures."""
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return Path(next(v.partition("=")[2] for v in variables if v.startswith("PROMETHEUS_MULTIPROC_DIR=")))


def test_documented() -> None:
    """docs/operations.md has a row for each metric, with its type and labels, and for no other."""
    rows = re.findall(r"^\| `(headwater_\w+)` \| (\w+) \| ([^|]*?) ?\| [^|]+ \|$", DOCS.read_text(), re.MULTILINE)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert len(rows) == len(documented)
    expected = {}
    for metric in vars(Metrics()).values():
        if hasattr(metric, "_labelnames"):
            (family,) = metric.describe()
            name = f"{family.name}_total" if isinstance(metric, Counter) else family.name
            expected[name] = (family.type, metric._labelnames)
    assert documented == expected


def test_counts_that_others_keep() -> None:
    """Each is added once, whatever its label."""
    metrics, grown = Metrics(), Grown()
    for total in (2, 2, 5):
        grown.tell(metrics.deliveries, total)
        grown.tell_each(metrics.refusals, {"requests": total, "sign_in": 2 * total})
    told = metrics.registry.get_sample_value
    assert told("headwater_deliveries_total") == 5
    assert told("headwater_rate_limit_refusals_total", {"limit": "sign_in"}) == 10


def test_delays() -> None:
    """Delays are counted in the class that Prometheus would put them in, and a clock that is behind gives none below
    zero."""
    metrics, grown, delays, direct = Metrics(), Grown(), Delays(), Metrics()
    for seconds in (-1.0, 0.0, 0.005, 0.0051, 0.3, 29.0, 31.0):
        delays.note(seconds)
        grown.tell_histogram(metrics.commit_to_client, delays.counts, delays.sum_seconds)
        direct.commit_to_client.observe(max(0.0, seconds))
    assert [s for f in metrics.registry.collect() for s in f.samples if "commit" in s.name] == [
        s for f in direct.registry.collect() for s in f.samples if "commit" in s.name
    ]
    assert len(delays.counts) == len(DELAY_BOUNDS) + 1
