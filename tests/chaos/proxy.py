"""A TCP proxy of our own, in which connections can be cut, can hang, be slow, and lose published messages."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re

from tests.listening import stop_listening

#: A getMore of a change stream on a database, as it stands in the driver's message.
_GET_MORE = re.compile(rb"\x12getMore\x00(.{8})\x02collection\x00.{4}\$cmd\.aggregate\x00", re.DOTALL)
_MESSAGE = re.compile(rb"[*>]\d+\r\n\$7\r\nmessage\r\n")


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.subscribed = False

    def abort(self) -> None:
        """Cut both halves, as a broken cable and a firewall's reset would."""
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """Listens on a port of its own and passes everything on to `target`, as well as it is told to."""

    def __init__(self, target: int, chance: random.Random) -> None:
        self.port = 0
        #: The share of published messages that never arrive at a Redis subscriber.
        self.lost_share = 0.0
        self.lost_messages = 0
        #: How long each piece of a stream is held up.
        self.delay_seconds = 0.0
        #: Whether new connections are refused.
        self.refusing = False
        #: The cursors of change streams that were read through here, the latest last.
        self.cursors: dict[int, None] = {}
        self._target = target
        self._chance = chance
        self._links: set[_Link] = set()
        self._accepted: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            await stop_listening(self._server)
        self.cut()
        writers = [link.server for link in self._links]
        # Also those of connections that were only just accepted, whose task may end before its first line.
        while accepted := dict(self._accepted):
            writers += accepted.values()
            for task, writer in accepted.items():
                task.cancel()
                writer.transport.abort()
            await asyncio.gather(*accepted, return_exceptions=True)
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    def cut(self, share: float = 1.0) -> int:
        """Cut some of the connections; answers how many."""
        cut = [link for link in self._links if self._chance.random() < share]
        for link in cut:
            link.abort()
        return len(cut)

    def hang(self) -> int:
        """Let all present connections hang, without a word to either side, until they are cut."""
        for link in self._links:
            link.flowing.clear()
        return len(self._links)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._accepted[task] = writer
        task.add_done_callback(self._accepted.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, server_writer)
        self._links.add(link)
        pumps = [asyncio.create_task(self._up(reader, link)), asyncio.create_task(self._down(server_reader, link))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._links.discard(link)
            for pump in pumps:
                pump.cancel()
            # First, because this may be cancelled while it waits.
            writer.close()
            server_writer.close()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _up(self, reader: asyncio.StreamReader, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if b"SUBSCRIBE" in data:
                    link.subscribed = True
                for found in _GET_MORE.finditer(data):
                    cursor = int.from_bytes(found.group(1), "little")
                    self.cursors.pop(cursor, None)
                    self.cursors[cursor] = None
                await self._pass(data, link, link.server)

    async def _down(self, reader: asyncio.StreamReader, link: _Link) -> None:
        kept = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(262_144):
                if link.subscribed:
                    data, kept = self._thin_out(kept + data)
                if data:
                    await self._pass(data, link, link.client)

    async def _pass(self, data: bytes, link: _Link, to: asyncio.StreamWriter) -> None:
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        await link.flowing.wait()
        to.write(data)
        await to.drain()

    def _thin_out(self, data: bytes) -> tuple[bytes, bytes]:
        """What is passed on of a subscriber's replies, and what is not whole yet. Loses whole messages only."""
        passed = bytearray()
        start = 0
        while (end := reply_end(data, start)) is not None:
            if self.lost_share and _MESSAGE.match(data, start) and self._chance.random() < self.lost_share:
                self.lost_messages += 1
            else:
                passed += data[start:end]
            start = end
        return bytes(passed), data[start:]


def reply_end(data: bytes, start: int) -> int | None:
    """Where the reply that begins at `start` ends (RESP2 and RESP3); None when it is not whole."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, after = data[start : start + 1], line_end + 2
    if kind in b"$=!":
        length = int(data[start + 1 : line_end])
        end = after + length + 2 if length >= 0 else after
        return end if end <= len(data) else None
    if kind in b"*>~%":
        count = int(data[start + 1 : line_end]) * (2 if kind == b"%" else 1)
        place: int | None = after
        for _ in range(count):
            if place is None:
                return None
            place = reply_end(data, place)
        return place
    return after
