"""The log: one form, a line for each request and socket, and nothing in it that a client chose."""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import structlog

from api.logs import formatter, tame_uvicorn
from tests.api.conftest import Starter
from tests.api.servers import PASSWORD, Server, User, live, opened, serving, wait_until
from tests.api.test_event_stream import streaming

Line = dict[str, Any]


@pytest.fixture(scope="module")
def json_server(
    tmp_path_factory: pytest.TempPathFactory, server_settings: Starter, free_port: Callable[[], int]
) -> Iterator[Server]:
    """A server that logs all that there is, for programs."""
    settings = server_settings(log_format="json", log_level="debug")
    with serving(tmp_path_factory.mktemp("json"), free_port(), settings) as server:
        yield server


@pytest.fixture(scope="module")
def mara(json_server: Server) -> User:
    """A user of that server."""
    return json_server.register("mara")


def lines(server: Server, **wanted: object) -> list[Line]:
    """The lines with these values. Each line of the log is an object."""
    found = [json.loads(line) for line in server.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in found)
    return [line for line in found if wanted.items() <= line.items()]


def line_of(server: Server, **wanted: object) -> Line:
    """The one line with these values, once it is there."""
    wait_until(lambda: lines(server, **wanted))
    (line,) = lines(server, **wanted)
    return line


def test_request(json_server: Server, mara: User) -> None:
    """Who asked for what, how it went, and how long it took; the words that were looked for are not told."""
    request_id = uuid.uuid4().hex
    answer = mara.client.get("/posts?title=otter-weir&count=exact", headers={"X-Request-ID": request_id})
    assert answer.status_code == 200
    line = line_of(json_server, request_id=request_id, message="request")
    assert (line["method"], line["route"], line["status"]) == ("GET", "/api/v1/posts", 200)
    assert (line["user"], line["address"], line["level"]) == (mara.id, "127.0.0.1", "info")
    assert line["duration_ms"] > 0
    assert line["bytes"] == len(answer.content)
    assert "otter" not in json_server.log


def test_refused_request(json_server: Server) -> None:
    """Of one that nobody signed, no user is told; of a path that is no route, no path."""
    for path, headers, route, status in (
        ("/users/me", {"Authorization": "Bearer nonsense"}, "/api/v1/users/me", 401),
        ("/otter-weir/../x", {}, "unmatched", 404),
    ):
        request_id = uuid.uuid4().hex
        json_server.client().get(path, headers={"X-Request-ID": request_id} | headers)
        line = line_of(json_server, request_id=request_id, message="request")
        assert (line["route"], line["status"]) == (route, status)
        assert "user" not in line
    assert "otter" not in json_server.log
    assert "nonsense" not in json_server.log


def test_socket(json_server: Server, mara: User) -> None:
    """One line at the end of a socket: who had signed in on it, what was sent, and how it was closed."""
    with opened(json_server) as socket:
        connection = socket.receive()["connection"]
        socket.send(type="auth", token=mara.token)
        socket.receive_until("authenticated")
        socket.subscribe("1", filter={"title": "otter-weir"})
        socket.socket.send(b"binary")
        assert socket.close_code() == 4500
    line = line_of(json_server, connection=connection, message="socket")
    assert (line["route"], line["status"], line["code"]) == ("/api/v1/ws", 101, 4500)
    assert line["user"] == mara.id
    assert line["bytes"] > 100
    assert len(line["request_id"]) >= 8
    with live(json_server):
        pass
    assert line_of(json_server, code=1000, message="socket")["status"] == 101
    assert "otter" not in json_server.log


def test_refused_socket(json_server: Server) -> None:
    """A handshake from a page of another site is told as what it was answered with."""
    headers = {"Origin": "https://otter.example", "Connection": "Upgrade", "Upgrade": "websocket"}
    headers |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert json_server.client().get("/ws", headers=headers).status_code == 403
    assert line_of(json_server, status=403, message="socket")["route"] == "/api/v1/ws"


def test_event_stream(json_server: Server, mara: User) -> None:
    """A stream is told of when it has ended."""
    request_id = uuid.uuid4().hex
    with streaming(mara.client, "/posts", **{"X-Request-ID": request_id}) as stream:
        stream.event()
        assert lines(json_server, request_id=request_id, message="request") == []
    line = line_of(json_server, request_id=request_id, message="request")
    assert (line["user"], line["status"]) == (mara.id, 200)
    assert line["bytes"] > 50
    assert line["connection"]


def test_probes(json_server: Server) -> None:
    """What is asked every few seconds is told only to those who want to see everything."""
    assert {line["level"] for line in lines(json_server, route="/health/ready")} == {"debug"}


def test_uvicorn(json_server: Server) -> None:
    """Its lines have the same form, and its line of a WebSocket has no query string; nor does it log frames."""
    with opened(json_server, query="?token=otter-weir-19-moss") as socket:
        assert socket.close_code() == 4501
    told = [line["message"] for line in lines(json_server, logger="uvicorn.error")]
    assert any("Started server process" in message for message in told)
    assert "\\u001b" not in json_server.log
    assert any(message.endswith('"WebSocket /api/v1/ws" [accepted]') for message in told)
    assert "otter" not in json_server.log
    assert '\\"type\\":' not in json_server.log
    assert PASSWORD not in json_server.log


def test_background_work(json_server: Server) -> None:
    """What a request has started says whose it was, after the answer too."""
    request_id = uuid.uuid4().hex
    body = {"username": "nils", "email": "nils@example.org", "password": PASSWORD}
    url = f"{json_server.url}/api/v1/auth/register"
    assert httpx.post(url, json=body, headers={"X-Request-ID": request_id}).status_code == 201
    wait_until(lambda: lines(json_server, request_id=request_id, logger="headwater.mail"))


def written(message: str, *args: object, as_json: bool = False, **more: object) -> str:
    """A record, as it is written."""
    record = logging.LogRecord("a.logger", logging.WARNING, __file__, 1, message, args, None)
    record.__dict__.update(more)
    return formatter(as_json=as_json).format(record)


@pytest.mark.parametrize("as_json", [False, True])
def test_line_breaks(as_json: bool) -> None:
    """Nobody makes a second line by a value of theirs, nor paints on a terminal."""
    line = written("a %s b", "one\nroot: two\r\x1b[31m\x85\u2028three\u2029four", as_json=as_json, user="x\ny z")
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


def test_text() -> None:
    """Lines for people: when, how bad, from where, what; then the rest."""
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        line = written("it %s", "failed", status=500, what="a b")
    assert line.split(" ", 1)[1] == 'WARNING a.logger: it failed request_id=abc status=500 what="a b"'


@pytest.mark.parametrize("as_json", [False, True])
def test_exception(as_json: bool) -> None:
    """Its stack belongs to its line."""
    try:
        raise ValueError("no good")
    except ValueError:
        line = written("it failed", as_json=as_json, exc_info=sys.exc_info())
    text = json.loads(line)["exception"] if as_json else line.partition("\n")[2]
    assert text.startswith("Traceback")
    assert text.endswith("ValueError: no good")


def test_values_that_json_has_not() -> None:
    """Whatever stands in a record, its line is written."""
    line = json.loads(written("it", as_json=True, thing=object, lone="\ud800"))
    assert "object" in line["thing"]


def test_other_servers_logging(caplog: pytest.LogCaptureFixture) -> None:
    """Also where uvicorn logs in its own way, a WebSocket's query string is not told."""
    tame_uvicorn()
    uvicorn = logging.getLogger("uvicorn.error")
    with caplog.at_level(logging.INFO, "uvicorn.error"):
        uvicorn.info('%s - "WebSocket %s" %d', "127.0.0.1:5", "/api/v1/ws?token=otter", 403)
        uvicorn.error("ASGI callable returned without completing handshake.")
    assert [record.getMessage() for record in caplog.records] == ['127.0.0.1:5 - "WebSocket /api/v1/ws" 403']
