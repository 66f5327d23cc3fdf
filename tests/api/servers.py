"""A real server in its own process, and clients for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.secrecy import SECRECY

ROOT = Path(__file__).parent.parent.parent
SECRET = "the-secret-of-the-tests-0123456789" * 2
ADMIN_EMAIL = "admin@example.org"
PASSWORD = "heron-ford-bridge-57"  # noqa: S105 - not used outside the tests
START_SECONDS = 60
RECEIVE_SECONDS = 20


def wait_until(condition: Callable[[], object], *, seconds: float = RECEIVE_SECONDS) -> None:
    """Wait until `condition()` is true; what another process does sets no event of ours."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition has not come true in time"
        time.sleep(0.02)


def environment(settings: Mapping[str, str], *paths: Path) -> dict[str, str]:
    """The environment of a server: what a process needs, `settings`, and nothing of whoever runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *paths)))} | dict(settings)


def credentials(token: str | None, key: str | bytes | None = None) -> dict[str, Any]:
    """The headers that carry an access token or an API key."""
    headers: dict[str, Any] = {"Authorization": f"Bearer {token}"} if token else {}
    return headers if key is None else headers | {"X-API-Key": key}


@dataclass
class Server:
    """One `python main.py` on a port of the loopback, its output in a file."""

    port: int
    process: subprocess.Popen[bytes]
    log_path: Path
    clients: list[httpx.Client] = field(default_factory=list)
    secrets: list[str] = field(default_factory=lambda: SECRECY.known)
    """What must not occur in any log or answer of the run. Most are learned from requests and answers; add the rest."""
    scheme: str = "http"

    @property
    def url(self) -> str:
        """The server's root."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the process has printed so far."""
        return self.log_path.read_text()

    def client(self, token: str | None = None, *, key: str | bytes | None = None, **options: Any) -> httpx.Client:
        """A client of `/api/v1` with an access token or an API key, closed with the server."""
        headers = credentials(token, key)
        client = httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=30, **options)
        self.clients.append(client)
        return client

    def login(self, username: str, password: str = PASSWORD) -> str:
        """An access token."""
        return self.sign_in(username, password)["access_token"]

    def sign_in(self, username: str, password: str = PASSWORD) -> dict[str, str]:
        """The tokens of a new session."""
        answer = httpx.post(
            f"{self.url}/api/v1/auth/login", json={"username": username, "password": password}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        tokens: dict[str, str] = answer.json()
        return tokens

    def register(self, username: str) -> User:
        """A new user, signed in."""
        body = {"username": username, "email": f"{username}@example.org", "password": PASSWORD}
        answer = httpx.post(f"{self.url}/api/v1/auth/register", json=body, timeout=30)
        assert answer.status_code == 201, answer.text
        token = self.login(username)
        return User(answer.json()["id"], username, token, self.client(token))

    def register_for_hours(self, username: str) -> User:
        """The same, for a user of many tests: the suite may last longer than a token does."""
        user = self.register(username)
        claims = jwt.decode(user.token, SECRET, algorithms=["HS256"], audience="headwater-api")
        token = jwt.encode(claims | {"exp": claims["exp"] + 6 * 3600}, SECRET, algorithm="HS256")
        SECRECY.learn(token)
        return User(user.id, username, token, self.client(token))

    def stop(self) -> str:
        """End the server as a supervisor would, and return its log. Safe to call twice."""
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return self.log

    def check_log(self) -> None:
        """The log tells of no error that nobody expected. (That no log holds a secret, `tests.secrecy` sees to.)"""
        text = self.log
        lines = [line for line in text.splitlines() if "Traceback" in line or " ERROR " in line or "CRITICAL" in line]
        assert lines == [], text[-5_000:]


@dataclass(frozen=True)
class User:
    """A signed-in user of a server."""

    id: str
    username: str
    token: str
    client: httpx.Client


@contextlib.contextmanager
def serving(directory: Path, port: int, settings: Mapping[str, str], *paths: Path) -> Iterator[Server]:
    """Run a server until the block ends; it is ready when the block begins."""
    SECRECY.learn(SECRET, PASSWORD)
    log_path = directory / "server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(ROOT / "main.py")],
            cwd=directory,
            env=environment({"HEADWATER_PORT": str(port), **settings}, *paths),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    scheme = "https" if "HEADWATER_TLS_CERTIFICATE" in settings else "http"
    server = Server(port, process, log_path, scheme=scheme)
    try:
        wait_until(lambda: is_ready(server), seconds=START_SECONDS)
        yield server
    finally:
        server.stop()


def is_ready(server: Server) -> bool:
    """Whether the server says that it can serve. Fails when it has ended."""
    assert server.process.poll() is None, server.log
    try:
        return httpx.get(f"{server.url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def refused_start(directory: Path, settings: Mapping[str, str], *paths: Path) -> tuple[int, str]:
    """Start a server that must not start: its exit code, and what it printed."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(ROOT / "main.py")],
        cwd=directory,
        env=environment(settings, *paths),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    SECRECY.hear(done.stdout + done.stderr, "the output of a start that was refused", log=True)
    return done.returncode, done.stdout + done.stderr


class Live:
    """A WebSocket client that speaks `headwater.v1`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, **message: Any) -> None:
        """Send one message."""
        self.socket.send(json.dumps(message))

    def receive(self) -> dict[str, Any]:
        """The next frame that is not a heartbeat."""
        while True:
            frame: dict[str, Any] = json.loads(self.socket.recv(RECEIVE_SECONDS))
            if frame["type"] != "position":
                return frame

    def receive_until(self, type: str) -> list[dict[str, Any]]:
        """The frames up to and with the first one of `type`."""
        frames = [self.receive()]
        while frames[-1]["type"] != type:
            frames.append(self.receive())
        return frames

    def subscribe(self, id: str, resource: str = "posts", **query: Any) -> str:
        """Subscribe, take everything up to `ready`, and return the view's name."""
        self.send(type="subscribe", id=id, resource=resource, **query)
        view: str = self.receive_until("ready")[0]["view"]
        return view

    def answers_ping(self) -> bool:
        """Whether the connection is alive, and everything that was sent before has been answered."""
        self.send(type="ping", id="alive")
        return self.receive() == {"type": "pong", "id": "alive"}

    def close_code(self) -> int | None:
        """Read until the server closes; the code that it gave."""
        try:
            while True:
                self.socket.recv(RECEIVE_SECONDS)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None


@contextlib.contextmanager
def live(server: Server, token: str | None = None, **options: Any) -> Iterator[Live]:
    """An open connection, past its `welcome`."""
    with opened(server, token, **options) as connection:
        assert connection.receive()["type"] == "welcome"
        yield connection


@contextlib.contextmanager
def opened(
    server: Server, token: str | None = None, *, key: str | None = None, query: str = "", **options: Any
) -> Iterator[Live]:
    """A connection whose handshake is done."""
    SECRECY.learn(token, key)
    options.setdefault("subprotocols", ["headwater.v1"])
    headers = credentials(token, key)
    url = f"{server.url.replace('http', 'ws', 1)}/api/v1/ws{query}"
    with connect(url, additional_headers=headers, proxy=None, **options) as socket:
        yield Live(socket)
