"""Requests whose head does not end, on real connections to uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from api.heads import UnfinishedHeads
from tests.waiting import until

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


@dataclass(frozen=True)
class Site:
    """A server whose one slow address answers when it is told to."""

    server: uvicorn.Server
    heads: UnfinishedHeads
    asked: asyncio.Event
    answer: asyncio.Event

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that the server knows of."""
        known = len(self.server.server_state.connections)
        made = await asyncio.open_connection(*self.server.servers[0].sockets[0].getsockname())
        await until(lambda: len(self.server.server_state.connections) > known)
        return made

    @property
    def idle(self) -> int:
        """How many connections wait for a next request of which nothing has come."""
        return sum(each.timeout_keep_alive_task is not None for each in self.server.server_state.connections)  # type: ignore[union-attr]  # all speak HTTP


@pytest.fixture(params=["httptools", "h11"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """A site whose tests say when it is swept; idle connections have a minute."""
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
    yield Site(server, UnfinishedHeads(server.server_state.connections), asked, answer)
    await server.shutdown()


async def answered(reader: asyncio.StreamReader) -> bytes:
    """The next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    return await reader.readexactly(len(b"done"))


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait for the connection's end; what was sent last may not have been read before it."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", b"GE", HEAD], ids=["nothing", "a word", "half a head"])
async def test_head_that_does_not_end(site: Site, sent: bytes) -> None:
    """The connection is closed at the second sweep, and not at the first."""
    reader, writer = await site.connect()
    writer.write(sent)
    site.heads.sweep()
    assert not reader.at_eof()
    site.heads.sweep()
    assert await ended(reader)
    writer.close()


async def test_second_head_that_does_not_end(site: Site) -> None:
    """A request that was answered earlier makes no difference."""
    reader, writer = await site.connect()
    writer.write(HEAD + b"\r\n")
    assert await answered(reader) == b"done"
    writer.write(HEAD)
    await until(lambda: site.idle == 0)
    site.heads.sweep()
    site.heads.sweep()
    assert await ended(reader)
    writer.close()


async def test_connection_in_use(site: Site) -> None:
    """One on which half a head stands at every sweep, each time another request's, is left alone."""
    reader, writer = await site.connect()
    for _ in range(4):
        writer.write(HEAD)
        await until(lambda: site.idle == 0)
        site.heads.sweep()
        writer.write(b"\r\n")
        assert await answered(reader) == b"done"
    writer.close()


async def test_others(site: Site) -> None:
    """Who waits for an answer, and who is idle after one, is left alone however often the site is swept."""
    idle, idle_writer = await site.connect()
    idle_writer.write(HEAD + b"\r\n")
    assert await answered(idle) == b"done"
    slow, slow_writer = await site.connect()
    slow_writer.write(HEAD.replace(b"/ ", b"/slow ", 1) + b"\r\n")
    await site.asked.wait()
    for _ in range(3):
        site.heads.sweep()
    site.answer.set()
    assert await answered(slow) == b"done"
    idle_writer.write(HEAD + b"\r\n")
    assert await answered(idle) == b"done"
    for writer in (idle_writer, slow_writer):
        writer.close()


async def test_sweeping(site: Site) -> None:
    """Goes on by itself."""
    sweeping = asyncio.create_task(site.heads.run(0.01))
    for _ in range(2):
        reader, writer = await site.connect()
        assert await ended(reader)
        writer.close()
    sweeping.cancel()
