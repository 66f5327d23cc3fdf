"""Bodies that stop arriving. (What a client sees of it over a real connection is in `test_every_error`.)"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api import stalls
from api.bodies import JSON, read_json
from api.problems import install_problems
from api.stalls import StalledBodies

PART, END = ({"type": "http.request", "body": b"1", "more_body": more} for more in (True, False))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "PART_SECONDS", 0.05)


class _Echo(Response):
    """Answers while it reads."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (message := await receive())["type"] == "http.request":
            await send({"type": "http.response.body", "body": message["body"], "more_body": message["more_body"]})


def application() -> FastAPI:
    """Reads bodies, before it answers, while it does, or never."""
    app = FastAPI()
    install_problems(app)
    app.add_middleware(StalledBodies)

    @app.post("/read")
    async def read(request: Request) -> Response:
        return Response(json.dumps(await read_json(request, (JSON,), max_bytes=100)))

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        del request
        return _Echo()

    @app.get("/wait")
    async def wait(request: Request) -> Response:
        await request.body()
        assert (await request.receive())["type"] == "http.disconnect"
        return Response("over")

    return app


async def answer(method: str, path: str, *given: Message | None) -> list[Message]:
    """What is sent to a client that sends these messages (None: it takes its time), and then nothing at all."""
    coming, sent = list(given), []

    async def receive() -> Message:
        if coming and coming[0] is None:
            coming.pop(0)
            await asyncio.sleep(4 * stalls.PART_SECONDS)
        if message := coming.pop(0) if coming else None:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "query_string": b"", "scheme": "http"}
    async with asyncio.timeout(20):
        headers = [(b"content-type", b"application/json")]
        await application()({**scope, "http_version": "1.1", "headers": headers}, receive, send)
    return sent


@pytest.mark.parametrize("given", [[], [PART], [PART, PART]])
async def test_body_that_stops(given: list[Message]) -> None:
    """Before, in or after its first part, is a problem that ends the connection."""
    start, body = await answer("POST", "/read", *given)
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    assert json.loads(body["body"])["code"] == "request_timeout"


async def test_body_that_stops_while_it_is_answered() -> None:
    """Ends the answer as if the client had left: what was begun cannot become a problem."""
    start, *parts = await answer("POST", "/echo", PART)
    assert start["status"] == 200
    assert [(part["body"], part["more_body"]) for part in parts] == [(b"1", True)], "it must not look complete"


async def test_body_that_comes() -> None:
    """Is read to its end, whatever comes after it."""
    start, body = await answer("POST", "/read", PART, PART, END)
    assert (start["status"], body["body"]) == (200, b"111")


async def test_client_that_waits_for_its_answer() -> None:
    """Has sent everything, so there is no hurry."""
    start, _ = await answer("GET", "/wait", END, None, {"type": "http.disconnect"})
    assert start["status"] == 200
