"""The client in a Node process, driven from Python, against real servers through a proxy with faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.api.servers import credentials
from tests.listening import stop_listening
from tests.waiting import until

PATIENCE_SECONDS = 90.0

Query = Mapping[str, Any]


class Driver:
    """One client process. See driver.mjs for the actions."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.queries: dict[str, tuple[str, Query]] = {}

    async def read(self) -> None:
        """Take the answers until the process ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            self._waiting.pop(answer["number"]).set_result(answer)

    async def do(self, action: str, *, patience: float = PATIENCE_SECONDS, **given: Any) -> Any:
        """Let the process do something, and return what it answers."""
        assert self._process.stdin is not None
        self._number += 1
        answer = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"number": self._number, "action": action, **given}).encode() + b"\n")
        content = await asyncio.wait_for(answer, patience)
        assert "error" not in content, content
        return content["value"]

    async def open(self, name: str, resource: str, query: Query) -> None:
        """Begin a live query."""
        self.queries[name] = (resource, query)
        await self.do("open", name=name, resource=resource, query=query)

    async def until(
        self, true: Callable[[dict[str, Any]], object], *, patience: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """Wait until what the client shows makes `true`."""
        seen: dict[str, Any] = {}

        async def holds() -> object:
            nonlocal seen
            seen = await self.do("look")
            return true(seen)

        try:
            await until(holds, seconds=patience)
        except TimeoutError:
            raise AssertionError(f"this did not come true in {patience} seconds: {seen}") from None
        return seen

    async def all(self, state: str) -> dict[str, Any]:
        """Wait until every live query is in a state."""
        return await self.until(lambda seen: {live["state"] for live in seen["lives"].values()} == {state})

    async def agrees(self, url: str, token: str | None, *, patience: float = PATIENCE_SECONDS) -> None:
        """Every local result equals a fresh query, and nothing went wrong on the way."""
        answers: dict[str, httpx.Response] = {}
        async with httpx.AsyncClient(base_url=f"{url}/api/v1", headers=credentials(token), timeout=60) as rest:
            for name, (resource, query) in self.queries.items():
                sort = query.get("sort", "")
                asked = {"filter": json.dumps(query.get("filter", {})), "limit": str(query.get("limit", 1_000))}
                asked |= {"sort": sort if isinstance(sort, str) else ",".join(sort)}
                answers[name] = answer = await rest.get(f"/{resource}", params=asked)
                assert answer.status_code == 200, answer.text
        # Asked for all before waiting for the first: on event streams, one heartbeat tells all of them where they are.
        for name, answer in answers.items():
            position = answer.headers["X-Position"]
            local = await self.do("caughtUp", name=name, position=position, patience=patience)
            assert local["position"] >= position
            ours, theirs = local["items"], answer.json()["items"]
            place = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
            told = (name, self.queries[name][1], place, ours[(place or 0) :][:3], theirs[(place or 0) :][:3])
            assert ours == theirs, told
            assert local["complete"] is not answer.json()["has_next"]
        assert (await self.do("look"))["faults"] == []


@contextlib.asynccontextmanager
async def driving(url: str, *tokens: str, transport: str = "auto") -> AsyncIterator[Driver]:
    """A client of a server, with the access tokens that it gets one after the other."""
    program = shutil.which("node")
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program,
        str(Path(__file__).parent / "driver.mjs"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
        limit=64 * 1024 * 1024,
    )
    driver = Driver(process)
    reading = asyncio.create_task(driver.read())
    try:
        await driver.do("connect", url=url, tokens=list(tokens), transport=transport)
        yield driver
        await driver.do("end")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


class Plug:
    """A TCP proxy to a server: connections can be cut and can hang, and WebSockets be refused."""

    def __init__(self, target: int) -> None:
        self.port = 0
        #: As of a proxy that knows plain HTTP only.
        self.websockets = True
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The root of the server, through here."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Abort all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def hang(self) -> None:
        """Pass nothing on any more on present connections; new ones work."""
        for task in self._tasks:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.read(65_536)
            if not self.websockets and b"upgrade: websocket" in first.lower():
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                writer.close()
                return
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(upstream)
        upstream.write(first)
        pumps = [asyncio.ensure_future(_pump(reader, upstream)), asyncio.ensure_future(_pump(upstream_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            # The one half has ended, and so does the other.
            writer.transport.abort()
            upstream.transport.abort()
        finally:
            for pump in pumps:
                pump.cancel()

    async def close(self) -> None:
        """Abort everything that is left."""
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def listen(self) -> asyncio.Server:
        """Begin."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def plugged(target: int) -> AsyncIterator[Plug]:
    """A proxy to a port."""
    plug = Plug(target)
    server = await plug.listen()
    try:
        yield plug
    finally:
        await stop_listening(server)
        await plug.close()
