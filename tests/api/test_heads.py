"""Requests whose head does not end, on real connections to uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from api.heads import end_unfinished

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


@dataclass(frozen=True)
class Site:
    """A server whose one slow address answers when it is told to."""

    port: int
    asked: asyncio.Event
    answer: asyncio.Event

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture(params=["httptools", "h11"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """Heads have a twentieth of a second, idle connections a minute."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            asked.set()
            await answer.wait()
        await PlainTextResponse("done")(scope, receive, send)

    config = uvicorn.Config(app, port=0, http=request.param, lifespan="off", log_config=None, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    ending = asyncio.create_task(end_unfinished(server.server_state.connections, 0.05))
    yield Site(server.servers[0].sockets[0].getsockname()[1], asked, answer)
    ending.cancel()
    await server.shutdown()


async def answered(reader: asyncio.StreamReader) -> bytes:
    """The next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    return await reader.readexactly(len(b"done"))


@pytest.mark.parametrize("sent", [b"", b"GE", HEAD], ids=["nothing", "a word", "half a head"])
async def test_head_that_does_not_end(site: Site, sent: bytes) -> None:
    """The connection is closed, also when it is the second request of it."""
    first, first_writer = await site.connect()
    first_writer.write(sent)
    assert await first.read() == b""
    second, second_writer = await site.connect()
    second_writer.write(HEAD + b"\r\n")
    assert await answered(second) == b"done"
    if sent:
        second_writer.write(sent)
        assert await second.read() == b""
    for writer in (first_writer, second_writer):
        writer.close()


async def test_others(site: Site) -> None:
    """Who waits for an answer, and who is idle after one, is left alone while somebody's head is waited for in vain."""
    idle, idle_writer = await site.connect()
    idle_writer.write(HEAD + b"\r\n")
    assert await answered(idle) == b"done"
    slow, slow_writer = await site.connect()
    slow_writer.write(HEAD.replace(b"/ ", b"/slow ", 1) + b"\r\n")
    await site.asked.wait()
    for _ in range(2):
        late, late_writer = await site.connect()
        assert await late.read() == b""
        late_writer.close()
    site.answer.set()
    assert await answered(slow) == b"done"
    idle_writer.write(HEAD + b"\r\n")
    assert await answered(idle) == b"done"
    for writer in (idle_writer, slow_writer):
        writer.close()
