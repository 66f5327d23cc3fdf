"""Clients of different tempers that keep the rules of docs/protocol.md, over WebSocket and Server-Sent Events."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import math
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.chaos.ledger import Ledger, Watched
from tests.chaos.site import Site

#: A client that hears nothing for so long, twice the heartbeat, connects again. Nobody should ever have to.
WATCHDOG_SECONDS = 50
#: A worker that does not even answer, because it is only starting or hangs, is left for another one.
CONNECT_SECONDS = 10
BACKOFF_MIN, BACKOFF_MAX = 0.1, 2.0
NO_STATUS = 1005
#: 1011: it answered no ping for 20 s. No code: lost, because it had sent what the server did not read any more.
_TOO_SLOW = frozenset({"closed with 4008", "closed with 1011", f"closed with {NO_STATUS}"})
#: A worker may be so late to hear that an account may sign in again.
NEWS_SECONDS = 30
#: Of a client that is absent now and then, so that what it does not take waits at the server and not on the way.
SMALL_BUFFER_BYTES = 65_536


class Temper(enum.StrEnum):
    """How a client behaves."""

    STEADY = "steady"
    SLEEPY = "sleepy"  # reads nothing for some seconds now and then, or is offline for as long
    SLOW = "slow"  # takes its time with each frame
    RESTLESS = "restless"  # leaves and resumes all the time
    ABSENT = "absent"  # reads nothing while its `gate` is closed, and leaves little room on the way

    @property
    def may_lag(self) -> bool:
        """Whether it may read too slowly to be kept."""
        return self in (Temper.SLEEPY, Temper.SLOW, Temper.ABSENT)


@dataclass
class Account:
    """Whom a client signs in as."""

    id: str
    name: str
    token: str
    #: What the checker has last made of the account; false from before it asks for that.
    active: bool = True
    _inactive_until: float = -math.inf

    def activated(self) -> None:
        """It certainly may sign in again."""
        if not self.active:
            self.active, self._inactive_until = True, time.monotonic()

    @property
    def may_be_refused(self) -> bool:
        """Whether a worker may know, or still believe, that it may not sign in."""
        return not self.active or time.monotonic() - self._inactive_until < NEWS_SECONDS


@dataclass(frozen=True)
class Query:
    """What a client subscribes to."""

    resource: str
    filter: dict[str, Any] = field(default_factory=dict)
    fields: tuple[str, ...] | None = None
    sort: str | None = None
    limit: int | None = None
    #: Whether the subscriber who asks is due every change of the collection.
    whole: bool = False

    def parameters(self, *, shaped: bool = True) -> dict[str, str]:
        """As a query string has it; without what shapes only the snapshot unless `shaped`."""
        found = {"filter": json.dumps(self.filter)} if self.filter else {}
        if self.fields is not None:
            found["fields"] = ",".join(self.fields)
        if shaped and self.sort is not None:
            found["sort"] = self.sort
        if shaped and self.limit is not None:
            found["limit"] = str(self.limit)
        return found

    def message(self, id: str, since: dict[str, str] | None) -> str:
        """As a subscribe message."""
        message: dict[str, Any] = {"type": "subscribe", "id": id, "resource": self.resource}
        if self.filter:
            message["filter"] = self.filter
        if self.fields is not None:
            message["fields"] = self.fields
        if self.sort is not None:
            message["sort"] = [self.sort]
        if self.limit is not None:
            message["limit"] = self.limit
        if since is not None:
            message["since"] = since
        return json.dumps(message)


_NARROW = (socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)


class _Refused(Exception):
    """The server does not let this account in at present."""


class Client:
    """One client. `run` connects until it is cancelled; `calm` ends its temper."""

    kind = "?"

    def __init__(
        self,
        number: int,
        site: Site,
        queries: Sequence[Query],
        account: Account | None,
        temper: Temper,
        ledger: Ledger,
        chance: random.Random,
    ) -> None:
        who = account.name if account else "anonymous"
        self.queries = tuple(queries)
        self.account = account
        self.temper = temper
        self.ledger = ledger
        self.watched = [
            Watched(
                f"{self.kind} client {number}.{n} ({who}, {temper}, {query.parameters()} of {query.resource})",
                ledger,
                whole=query.whole,
            )
            for n, query in enumerate(queries)
        ]
        self.calm = asyncio.Event()
        #: Closed while an absent client is to read nothing.
        self.gate = asyncio.Event()
        self.gate.set()
        self._site = site
        #: Which worker it is connected to.
        self.port = 0
        self._chance = chance
        self._backoff = BACKOFF_MIN
        self._pause: tuple[float, float] | None = None
        self._connected = False

    @property
    def ready(self) -> bool:
        """Whether all that it watches is live."""
        return all(watched.ready for watched in self.watched)

    @property
    def lived(self) -> bool:
        """Whether all that it watches has been live."""
        return all(watched.lived for watched in self.watched)

    def has(self, marker: str) -> bool:
        """Whether the marker was seen wherever it belongs."""
        return all(marker in watched.markers for watched in self.watched)

    async def run(self) -> None:
        """Connect, again and again."""
        while True:
            why, self._connected = "left", False
            self.port = self._chance.choice(self._site.worker_ports)
            try:
                async with asyncio.timeout(None) as patience:
                    await self._connect(self.port, patience)
            except TimeoutError:
                why = "silence" if self._connected else "no answer"
                if self._connected:
                    self.watched[0].violate(f"nothing was heard for {WATCHDOG_SECONDS} s")
                else:
                    self._blame(f"no answer for {CONNECT_SECONDS} s")
            except _Refused:
                why = "refused"
                for watched in self.watched:
                    watched.forget()
            except ConnectionClosed as closed:
                why = f"closed with {closed.rcvd.code if closed.rcvd else NO_STATUS}"
                given_up = self.temper.may_lag and why in _TOO_SLOW
                self.ledger.given_up += given_up and self.temper is Temper.ABSENT
                if why != "closed with 4000" and not given_up:
                    self._blame(why)
            except (OSError, InvalidHandshake, httpx.HTTPError) as error:
                why = type(error).__name__
                # A stream whose client takes nothing is broken off.
                if not (self._connected and self.temper.may_lag and isinstance(error, httpx.RemoteProtocolError)):
                    self._blame(repr(error))
            finally:
                for watched in self.watched:
                    watched.disconnected()
            self.ledger.reconnects[why] += 1
            await self._wait_to_reconnect()

    def _blame(self, what: str) -> None:
        """What no fault explains is a violation."""
        if not self._site.excuses(self.port):
            self.watched[0].violate(f"without a fault: {what}")

    def _check_refusal(self, how: str) -> None:
        """Only those may be sent away whom the checker has deactivated."""
        if self.account is None or not self.account.may_be_refused:
            self.watched[0].violate(f"sent away: {how}")

    async def _connect(self, port: int, patience: asyncio.Timeout) -> None:
        raise NotImplementedError

    async def _wait_to_reconnect(self) -> None:
        low, high = self._pause or (0.0, self._backoff)
        self._pause = None
        self._backoff = min(2 * self._backoff, BACKOFF_MAX)
        await asyncio.sleep(self._chance.uniform(low, high))

    def _heard(self, patience: asyncio.Timeout) -> None:
        self._connected = True
        patience.reschedule(asyncio.get_running_loop().time() + WATCHDOG_SECONDS)

    async def _act(self) -> bool:
        """What the temper asks for after a frame; whether to leave."""
        await self.gate.wait()
        if self.calm.is_set():
            return False
        match self.temper:
            case Temper.SLOW:
                await self._idle(self._chance.uniform(0, 0.1))
            # Whoever watches much hears much, and is not to sleep the more often.
            case Temper.SLEEPY if self._chance.random() < 0.005 / len(self.queries):
                await self._idle(self._chance.uniform(2, 8))
                return self._chance.random() < 0.5
            case Temper.RESTLESS:
                return self._chance.random() < 0.02 / len(self.queries)
        return False

    async def _idle(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.calm.wait()

    def _goes_away(self, frame: dict[str, Any]) -> None:
        low, high = frame["retry_after_ms"]
        self._pause = (low / 1_000, high / 1_000)


async def _narrow_socket(port: int) -> socket.socket:
    """A connection that takes little before somebody reads from it."""
    narrow = socket.socket()
    try:
        narrow.setblocking(False)
        narrow.setsockopt(*_NARROW)
        await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", port))
    except BaseException:
        narrow.close()
        raise
    return narrow


class WebSocketClient(Client):
    """A client with any number of subscriptions on one WebSocket."""

    kind = "WebSocket"

    async def _connect(self, port: int, patience: asyncio.Timeout) -> None:
        headers = {"Authorization": f"Bearer {self.account.token}"} if self.account else {}
        absent = self.temper is Temper.ABSENT
        async with connect(
            f"ws://127.0.0.1:{port}/api/v1/ws",
            sock=await _narrow_socket(port) if absent else None,
            subprotocols=["headwater.v1"],  # type: ignore[list-item]  # a NewType of str
            additional_headers=headers,
            proxy=None,
            open_timeout=CONNECT_SECONDS,
            close_timeout=0.5,
            ping_interval=None,
            max_size=None,
            max_queue=(1, 0) if absent else (16, 4),
        ) as socket:
            try:
                await self._converse(socket, patience)
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else NO_STATUS
                if code not in (4501, 4503):
                    raise
                self._check_refusal(f"closed with {code}")
                raise _Refused from None

    async def _converse(self, socket: ClientConnection, patience: asyncio.Timeout) -> None:
        for number, (query, watched) in enumerate(zip(self.queries, self.watched, strict=True)):
            await socket.send(query.message(str(number), watched.since))
        while True:
            self._heard(patience)
            text = str(await socket.recv())
            frame = json.loads(text)
            self._hear(frame, text)
            if await self._act():
                return

    def _hear(self, frame: dict[str, Any], text: str) -> None:
        type = frame["type"]
        if type == "goaway":
            self._goes_away(frame)
        elif type in ("error", "unsubscribed"):
            self.watched[0].violate(f"unexpected: {text}")
        elif type == "position":
            for watched in self.watched:
                watched.hear(type, frame, text)
        elif "id" in frame and type != "event":
            self._backoff = BACKOFF_MIN
            self.watched[int(frame["id"])].hear(type, frame, text)
        elif "view" in frame:
            concerned = [watched for watched in self.watched if watched.is_named(frame["view"])]
            for watched in concerned:
                watched.hear(type, frame, text)
            if not concerned and type == "event":
                self.watched[0].violate(f"an event of no view: {text[:300]}")


class EventStreamClient(Client):
    """A client of Server-Sent Events, which resumes with `Last-Event-ID`."""

    kind = "SSE"
    #: Whether the server has said that it will end the stream.
    _told_why = False
    _OPS = frozenset({"create", "enter", "update", "leave", "delete"})

    async def _connect(self, port: int, patience: asyncio.Timeout) -> None:
        query, watched = self.queries[0], self.watched[0]
        headers = {"Accept": "text/event-stream"}
        if self.account is not None:
            headers["Authorization"] = f"Bearer {self.account.token}"
        since = watched.since
        if since is not None:
            headers["Last-Event-ID"] = f"{since['view']}@{since['position']}"
        url = f"http://127.0.0.1:{port}/api/v1/{query.resource}?{urlencode(query.parameters())}"
        timeout = httpx.Timeout(CONNECT_SECONDS, read=None)
        patience.reschedule(asyncio.get_running_loop().time() + CONNECT_SECONDS)
        transport = httpx.AsyncHTTPTransport(socket_options=[_NARROW] if self.temper is Temper.ABSENT else None)
        self._told_why = False
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False, transport=transport) as http,
            http.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code == 401:
                self._check_refusal("answered with 401")
                raise _Refused
            if answer.status_code == 503:
                self._blame("answered with 503")
                return
            if answer.status_code != 200:
                watched.violate(f"answered with {answer.status_code}")
                return
            self._heard(patience)
            left = await self._read(answer, patience)
            if not (left or self._told_why or self.temper.may_lag):
                self._blame("the stream ended without a word")

    async def _read(self, answer: httpx.Response, patience: asyncio.Timeout) -> bool:
        """Read until the end of the stream, or until the client leaves; whether it does."""
        watched = self.watched[0]
        name = data = ""
        async for line in answer.aiter_lines():
            self._heard(patience)
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                data += line[5:].strip()
            elif not line and data:
                self._hear(watched, name, data)
                name = data = ""
                if await self._act():
                    return True
        return False

    def _hear(self, watched: Watched, name: str, data: str) -> None:
        frame = json.loads(data)
        if name == "goaway":
            self._told_why = True
            self._goes_away(frame)
        elif name == "problem" and frame["code"] == "forbidden":
            self._told_why = True
            self._check_refusal(data)
        elif name in ("problem", "unsubscribed"):
            watched.violate(f"unexpected: {data}")
        else:
            self._backoff = BACKOFF_MIN
            watched.hear("event" if name in self._OPS else name, frame, data)
