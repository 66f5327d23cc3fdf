"""Clients of a running server, one at each worker, that measure when they hear of a change."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from api.server_secret import server_secret
from api.settings import Settings
from api.token_keys import load_token_keys, secret_key
from api.tokens import Tokens
from documents import SESSIONS, Canary, Database, Registry, Stored, Workers
from realtime.protocol import SUBPROTOCOL, CloseCode

#: Nobody says which worker accepts a connection. With two for each in so many rounds, all have one.
_ROUNDS: Final = 10
_MOST_CONNECTIONS: Final = 400
_TOKEN_LIFETIME: Final = dt.timedelta(minutes=5)
_ASK_AGAIN: Final = dt.timedelta(milliseconds=100)


class ProbeFailed(Exception):
    """The server could not be asked at all; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Delays:
    """From a commit's acknowledgement to the client, in milliseconds; None where no event came."""

    id: str
    worker: str
    feed: str
    relay: bool
    reached: bool
    direct_ms: float | None = None
    api_ms: float | None = None


class Probes:
    """Clients at `address`, who sign in as a canary of their own."""

    def __init__(
        self, settings: Settings, database: Database, registry: Registry, address: str, patience: dt.timedelta
    ) -> None:
        self._settings = settings
        self._database = database
        self._address = address.rstrip("/")
        self._patience = patience.total_seconds()
        self._secret = server_secret(settings)
        self._canary = Canary(database, registry, self._secret)
        self._ssl = _trusting(settings) if self._address.startswith("https:") else None

    async def measure(self, workers: Sequence[Stored]) -> list[Delays]:
        """Let each of the workers tell a client of a direct write and of one by the API.

        Raises ProbeFailed and DatabaseAway. Leaves nothing behind, also when it is cancelled.
        """
        try:
            await self._canary.create()
            opening = await self._canary.sign_in()
            keys = load_token_keys(self._settings.token_keys) or [secret_key(self._secret)]
            token, _ = Tokens(keys, _TOKEN_LIFETIME).issue(
                str(opening.user_id), str(opening.session_id), opening.ends_at
            )
            async with contextlib.AsyncExitStack() as stack:
                probes = await self._reach(stack, token, [str(worker["_id"]) for worker in workers])
                return await self._told(workers, probes)
        finally:
            await self._canary.remove()

    async def _told(self, workers: Sequence[Stored], probes: dict[str, ClientConnection]) -> list[Delays]:
        await asyncio.gather(*map(self._subscribe, probes.values()))
        async with self._hearing(probes, "create") as direct:
            spare = await self._canary.sign_in()
        async with self._hearing(probes, "update") as by_api:
            await self._sign_out(spare.refresh_token)
        return [
            Delays(
                id=str(worker["_id"]),
                worker=f"{worker.get('host', '?')} process {worker.get('pid', '?')}",
                feed=str(worker.get("feed", "?")),
                relay=bool(worker.get("relay")),
                reached=worker["_id"] in probes,
                direct_ms=direct.get(str(worker["_id"])),
                api_ms=by_api.get(str(worker["_id"])),
            )
            for worker in workers
        ]

    @contextlib.asynccontextmanager
    async def _hearing(self, probes: dict[str, ClientConnection], op: str) -> AsyncIterator[dict[str, float | None]]:
        """Milliseconds from the end of the block to the event at each probe; None where none came. Known afterwards."""
        hearing = {worker: asyncio.ensure_future(self._hears(probe, op)) for worker, probe in probes.items()}
        delays: dict[str, float | None] = {}
        try:
            yield delays
            written = asyncio.get_running_loop().time()
            for worker, task in hearing.items():
                delays[worker] = _milliseconds(await task, written)
        finally:
            for task in hearing.values():
                task.cancel()
            await asyncio.gather(*hearing.values(), return_exceptions=True)

    async def _reach(
        self, stack: contextlib.AsyncExitStack, token: str, workers: Sequence[str]
    ) -> dict[str, ClientConnection]:
        """A connection to each worker that answers, of as many as are needed to meet them all."""
        reached: dict[str, ClientConnection] = {}
        answering = list(workers)
        for _ in range(_ROUNDS):
            count = min(2 * len(workers), _MOST_CONNECTIONS // _ROUNDS)
            connections = await asyncio.gather(
                *(stack.enter_async_context(self._connected(token)) for _ in range(count))
            )
            opened = dict(zip(await asyncio.gather(*map(self._welcomed, connections)), connections, strict=True))
            where = await self._where(answering)
            # Who is silent is not waited for again.
            answering = list(where)
            for worker, names in where.items():
                for name in names:
                    if name in opened:
                        reached.setdefault(worker, opened[name])
            if len(reached) >= len(answering):
                break
        return reached

    async def _where(self, workers: Sequence[str]) -> dict[str, list[str]]:
        """Which of our connections each worker has, as those say that answer when they are asked."""
        asking = Workers(self._database)
        order = await asking.give("connections", {"user_id": self._canary.user_id, "limit": _MOST_CONNECTIONS})
        replies: dict[str, Any] = {}
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    while len(replies) < len(workers):
                        await asyncio.sleep(_ASK_AGAIN.total_seconds())
                        replies = await asking.replies(order, workers)
        finally:
            await asking.withdraw(order)
        return {worker: [str(item["id"]) for item in reply["items"]] for worker, reply in replies.items()}

    @contextlib.asynccontextmanager
    async def _connected(self, token: str) -> AsyncIterator[ClientConnection]:
        remedy = "Start the server, or name the address of one that uses this database: --url http://host:port"
        async with contextlib.AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(
                    connect(
                        f"ws{self._address.removeprefix('http')}/api/v1/ws",
                        subprotocols=[Subprotocol(SUBPROTOCOL)],
                        additional_headers={"Authorization": f"Bearer {token}"},
                        ssl=self._ssl,
                        open_timeout=self._patience,
                        close_timeout=1,
                    )
                )
            except InvalidStatus as refused:
                status = refused.response.status_code
                message = f"{self._address} refuses connections with status {status}"
                raise ProbeFailed(message, "Name an address that HEADWATER_TRUSTED_HOSTS allows: --url") from None
            except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as error:
                raise ProbeFailed(f"nothing answers at {self._address} ({_reason(error)})", remedy) from None
            yield connection

    async def _welcomed(self, connection: ClientConnection) -> str:
        """The connection's name."""
        try:
            async with asyncio.timeout(self._patience):
                welcome = json.loads(await connection.recv())
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
            if code == CloseCode.AUTHENTICATION_FAILED:
                message = f"the server at {self._address} does not take a token that is signed here"
                remedy = "Run this with the server's settings: HEADWATER_SECRET_KEY, HEADWATER_DATABASE and the rest"
                raise ProbeFailed(message, remedy) from None
            raise ProbeFailed(f"{self._address} closes connections with {code}", "Look into the server's log") from None
        except (TimeoutError, ValueError) as error:
            message = f"what answers at {self._address} is not Headwater ({_reason(error)})"
            raise ProbeFailed(message, "Name the server's address: --url") from None
        return str(welcome.get("connection"))

    async def _subscribe(self, connection: ClientConnection) -> None:
        """To sessions. One who is refused, or sent away, hears of nothing afterwards, which says it."""
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(self._patience):
                subscribe = {"type": "subscribe", "id": "canary", "resource": SESSIONS, "snapshot": False}
                await connection.send(json.dumps(subscribe))
                while json.loads(await connection.recv())["type"] not in ("ready", "error"):
                    pass

    async def _hears(self, connection: ClientConnection, op: str) -> float | None:
        """When the event came; None when it did not."""
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(self._patience):
                while True:
                    frame = json.loads(await connection.recv())
                    if frame["type"] == "event" and frame["op"] == op:
                        return asyncio.get_running_loop().time()
        return None

    async def _sign_out(self, refresh_token: str) -> None:
        """One write through the API."""
        request = urllib.request.Request(  # noqa: S310 - the address is the operator's own
            f"{self._address}/api/v1/auth/logout",
            data=json.dumps({"refresh_token": refresh_token}).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        try:
            await asyncio.to_thread(self._open, request)
        except urllib.error.HTTPError as error:
            message = f"POST {request.full_url} was answered with {error.code}"
            raise ProbeFailed(message, "Look into the server's log") from None
        except OSError as error:
            raise ProbeFailed(f"POST {request.full_url} failed ({_reason(error)})", "Look into its log") from None

    def _open(self, request: urllib.request.Request) -> None:
        with urllib.request.urlopen(request, timeout=self._patience, context=self._ssl):  # noqa: S310 - see above
            pass


def _milliseconds(heard: float | None, written: float) -> float | None:
    # An event may be here before the answer is.
    return None if heard is None else round(max(0.0, heard - written) * 1_000, 1)


def _trusting(settings: Settings) -> ssl.SSLContext:
    """The machine's authorities, and the server's own certificate under whatever name it is reached here."""
    context = ssl.create_default_context()
    if settings.tls_certificate is not None and not settings.public_url:
        context.load_verify_locations(settings.tls_certificate)
        context.check_hostname = False
    return context


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
