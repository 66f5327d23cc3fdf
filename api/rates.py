"""The rate limit of the API: so many requests per user or key, or per address for those who are nobody yet."""

from __future__ import annotations

from fastapi.requests import HTTPConnection
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.addresses import address_of
from api.callers import identify
from api.counters import Counters, Limits, Standing
from api.problems import Problem, problem_answer
from api.services import Caller, services_of

#: How many operations of a bulk request count as one request more.
OPERATIONS_PER_REQUEST = 10


class Allowance:
    """What one request may use, on behalf of whom it counts for."""

    def __init__(self, counters: Counters, limits: Limits, key: str) -> None:
        self.key = key
        self.standing: Standing | None = None
        self._counters = counters
        self._limits = limits

    async def spend(self, cost: int) -> None:
        """Count `cost` requests. Raises a 429 Problem and counts nothing if that is too many."""
        self.standing = await self._counters.hit(self._limits, "rate", self.key, cost=cost)
        if not self.standing.allowed:
            self._counters.refused["requests"] += 1
            detail = f"Too many requests; try again in {self.standing.reset_seconds} seconds."
            raise Problem(429, detail, headers=self.standing.headers())


async def charge(request: HTTPConnection, operations: int) -> None:
    """Count a request that does the work of many for what it costs, before it does it. Raises a 429 Problem."""
    allowance = request.scope["state"].get("allowance")
    if isinstance(allowance, Allowance) and (cost := operations // OPERATIONS_PER_REQUEST) > 0:
        await allowance.spend(cost)


class RateLimited:
    """ASGI middleware that counts requests and WebSocket handshakes under `prefix`, and tells where the caller stands.

    It finds out who is calling, once for all that follows. A token that is not valid counts for the address it came
    from, so nobody can use up what is somebody else's.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket") or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        services = services_of(connection)
        caller = await identify(connection)
        key = _key(caller) or f"address {address_of(connection)}"
        allowance = Allowance(services.counters, services.rate_limits, key)
        scope["state"]["allowance"] = allowance

        async def send_with_headers(message: Message) -> None:
            if message["type"].endswith("http.response.start") and allowance.standing is not None:
                headers = MutableHeaders(scope=message)
                # An answer of the sign-in throttle speaks of that limit.
                for name, value in allowance.standing.headers().items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await allowance.spend(1)
        except Problem as problem:
            await problem_answer(problem, scope)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def _key(caller: Caller | None) -> str | None:
    """Whom a request counts for: the key that it names, or its user. None for those who are nobody yet."""
    if caller is None or caller.credential is None:
        return None
    credential = caller.credential
    return f"key {credential.id}" if credential.is_key else f"user {credential.user_id}"
