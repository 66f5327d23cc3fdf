"""The envelope around the application, where errors of no known kind end."""

from __future__ import annotations

import logging

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.middleware import Envelope, LastResort
from tests.api.test_errors import problem


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application with a fault."""
    del scope, receive, send
    raise RuntimeError("the detail that nobody outside may see")


async def failing_late(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that fails after the head of its answer."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("too late")


async def echoing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads the body first."""
    await Response(await Request(scope, receive).body())(scope, receive, send)


def client(app: object, base: str = "http://x") -> httpx.AsyncClient:
    """A client of an application in its envelope."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(Envelope(LastResort(app))), base_url=base)  # type: ignore[arg-type]


async def test_error_that_nobody_expected(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets a problem that tells nothing; the log has the stack trace under the request's id."""
    async with client(failing) as asking:
        answer = await asking.get("/a/b", headers={"X-Request-ID": "abcdefgh"})
    problem(answer, 500, "internal_error")
    assert "detail that nobody" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert "abcdefgh" in record.getMessage()
    assert "/a/b" in record.getMessage()


async def test_error_after_the_head_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    """No second head is sent, and the log tells of it."""
    sent = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "scheme": "http"}
    await LastResort(failing_late)(scope, receive, send)
    assert len(sent) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_client_that_left(caplog: pytest.LogCaptureFixture) -> None:
    """A body that never arrives is no error of the server: nothing is sent or logged."""
    sent = []

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "scheme": "http"}
    await LastResort(echoing)(scope, receive, send)
    assert sent == []
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


async def test_answer_over_tls() -> None:
    """Tells browsers to stay with TLS."""
    async with client(echoing, "https://x") as asking:
        assert "max-age=" in (await asking.get("/")).headers["strict-transport-security"]
