"""The image's own start command behind the compose file's own proxy: real nginx, Redis, database and workers."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.api.servers import RECEIVE_SECONDS, SECRET, Server, User, live, wait_until
from tests.api.watchers import publish, watching
from tests.deploy.compose import services
from tests.deploy.site import Container, proxying
from tests.redis_server import running_redis

#: What stands in `.env`. All tests come from one address, and more often than people do.
ENV_FILE = {
    "HEADWATER_SECRET_KEY": SECRET,
    "HEADWATER_RATE_LIMIT": "1000000/minute",
    "HEADWATER_LOGIN_RATE_LIMIT": "100000/minute",
}
WRITERS = 4
#: More than workers, and several on each (nothing says which worker accepts a connection).
WATCHERS = 10


@dataclass
class Site:
    """Two containers of the service `api`, as `docker compose up --scale api=2` makes them, and the proxy."""

    containers: list[Container]
    proxy: Server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, mongodb_url: str, free_port: Callable[[], int]) -> Iterator[Site]:
    """A site that is ready."""
    directory = tmp_path_factory.mktemp("site")
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(running_redis(directory, free_port()))
        variables = {**ENV_FILE, "HEADWATER_DATABASE": f"site_{uuid.uuid4().hex[:12]}"}
        containers = []
        for number in range(2):
            home = directory / f"api-{number}"
            home.mkdir()
            port = free_port()
            # Of what compose sets, only what names a place: another host, port or folder.
            places = {
                "HEADWATER_HOST": "127.0.0.1",
                "HEADWATER_PORT": str(port),
                "HEADWATER_DATA_DIR": str(home / "data"),
                "HEADWATER_MONGODB_URL": mongodb_url,
                "HEADWATER_REDIS_URL": redis.url,
            }
            containers.append(Container(home, port, variables, places))
            stack.callback(containers[-1].end)
        for container in containers:
            wait_until(container.is_ready, seconds=120)
        home = directory / "proxy"
        home.mkdir()
        proxy = stack.enter_context(proxying(home, free_port(), [container.port for container in containers]))
        yield Site(containers, proxy)


@pytest.fixture(scope="module")
def mara(site: Site) -> User:
    """A user."""
    return site.proxy.register("mara")


def test_production(site: Site) -> None:
    """The containers run in production with several workers each, as the compose file says; the health check agrees."""
    environment = services(ENV_FILE)["api"]["environment"]
    assert environment["HEADWATER_ENVIRONMENT"] == "production"
    workers = int(environment["HEADWATER_WORKERS"])
    assert workers > 1
    wait_until(lambda: all(each.log.count(" serves") == workers for each in site.containers), seconds=60)
    assert all(container.is_healthy() for container in site.containers)


def test_foreign_host(site: Site) -> None:
    """A request for a host that is not named in the settings is refused, through the proxy too."""
    answer = httpx.get(f"{site.proxy.url}/api/v1/posts", headers={"Host": "attacker.example.org"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_claims_of_a_client(site: Site) -> None:
    """What a client says of its own address and scheme is not believed: the proxy's word is."""
    claims = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    answer = httpx.get(f"{site.proxy.url}/api/v1/posts", headers=claims)
    assert answer.status_code == 200
    assert "strict-transport-security" not in answer.headers


def test_websocket(site: Site, mara: User) -> None:
    """A live view through the proxy gets a change at once."""
    with live(site.proxy) as connection:
        view = connection.subscribe("1", filter={"status": "published"})
        publish(mara, "By socket")
        event = connection.receive()
    assert (event["type"], event["view"], event["document"]["title"]) == ("event", view, "By socket")


def test_event_stream(site: Site, mara: User) -> None:
    """Server-Sent Events pass one by one: none waits in a buffer of the proxy until more come."""
    url = f"{site.proxy.url}/api/v1/posts?status=published&snapshot=false"
    headers = {"Accept": "text/event-stream"}
    with httpx.stream("GET", url, headers=headers, timeout=RECEIVE_SECONDS) as stream:
        lines = stream.iter_lines()
        assert "event: ready" in lines
        publish(mara, "By stream")
        assert "event: create" in lines
        assert any(line.startswith("data:") and "By stream" in line for line in lines)


def test_file_through_the_proxy(mara: User) -> None:
    """A file of many buffers comes back as it was, also in part."""
    content = uuid.uuid4().bytes * 200_000
    answer = mara.client.post("/files", files={"files": ("a.bin", content)})
    assert answer.status_code == 201, answer.text
    id = answer.json()["items"][0]["id"]
    assert mara.client.get(f"/files/{id}/content").content == content
    part = mara.client.get(f"/files/{id}/content", headers={"Range": "bytes=100000-100009"})
    assert (part.status_code, part.content) == (206, content[100_000:100_010])


class Load:
    """Writers that publish posts without pause, and never try twice."""

    def __init__(self, site: Site, user: User) -> None:
        self.titles: list[str] = []
        self._site = site
        self._user = user
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def write(self, writer: int) -> list[tuple[int, str]]:
        """Write until told to stop; what was not answered as it should."""
        failed = []
        with httpx.Client(base_url=f"{self._site.proxy.url}/api/v1", timeout=30) as client:
            client.headers["Authorization"] = f"Bearer {self._user.token}"
            number = 0
            while not self._ended.is_set():
                title = f"{writer}-{number}"
                number += 1
                answer = client.post("/posts", json={"title": title, "status": "published"})
                if answer.status_code == 201:
                    with self._lock:
                        self.titles.append(title)
                else:
                    failed.append((answer.status_code, answer.text))
        return failed

    @contextlib.contextmanager
    def running(self) -> Iterator[list[tuple[int, str]]]:
        """Write meanwhile; the list has what failed, once the block has ended."""
        failed: list[tuple[int, str]] = []
        with ThreadPoolExecutor(WRITERS) as pool:
            writers = [pool.submit(self.write, number) for number in range(WRITERS)]
            try:
                yield failed
            finally:
                self._ended.set()
            for writer in writers:
                failed += writer.result()


def test_stop_under_load(site: Site, mara: User) -> None:
    """A container is stopped while its clients write and watch: no request fails, no event is lost or repeated, and it
    ends with 0 within the grace that the compose file allows."""
    grace = float(services(ENV_FILE)["api"]["stop_grace_period"].rstrip("s"))
    load = Load(site, mara)
    with watching(site.proxy, WATCHERS) as watchers:
        with load.running() as failed:
            wait_until(lambda: len(load.titles) > 20, seconds=60)
            assert site.containers[0].stop(grace) == 0
            begun = len(load.titles)
            wait_until(lambda: len(load.titles) > begun + 20, seconds=60)
        assert failed == []
        for watcher in watchers:
            watcher.read_all(set(load.titles))
            assert len(watcher.titles) == len(set(watcher.titles))
            assert "reset" not in watcher.told
        assert any(len(watcher.recovered) > 1 for watcher in watchers)
        # Commits have one order, which all have seen.
        assert len({tuple(watcher.titles) for watcher in watchers}) == 1


def test_nobody_answers(site: Site) -> None:
    """While no container runs, the proxy answers with a problem that says to come back; its log has no query."""
    for container in site.containers:
        container.end()
    assert not site.containers[0].is_healthy()
    answer = httpx.get(f"{site.proxy.url}/api/v1/posts?search=confidential")
    problem: dict[str, Any] = json.loads(answer.text)
    assert (answer.status_code, problem["status"], problem["code"]) == (503, 503, "unavailable")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    wait_until(lambda: '"path":"/api/v1/posts","status":503' in site.proxy.log)
    assert "confidential" not in site.proxy.log
