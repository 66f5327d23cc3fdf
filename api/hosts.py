"""Which hosts this server answers as, and that it answers over TLS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import Problem, problem_answer

#: RFC 9110, 7.2: a name, an IPv4 address or an IPv6 address in brackets, and perhaps a port.
_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?", re.IGNORECASE)


#: Probes ask by whatever address and scheme they find the process under; so does Prometheus, which cannot be told
#: another name than that of what it scrapes. Nothing in these answers is built from it.
HEALTH = "/health/"
METRICS = "/metrics"


def is_host_pattern(text: str) -> bool:
    """Whether `text` is a host without a port, `*.` and a host, or `*`."""
    found = _HOST.fullmatch(text.removeprefix("*."))
    return text == "*" or (found is not None and found.group(2) is None)


class TrustedHosts:
    """ASGI middleware that refuses requests and WebSockets for other hosts than `patterns`, with 400.

    Against pages of a foreign domain that is made to resolve to this server (DNS rebinding), and links with a foreign
    host in what is built from the header. Not for `/health/`, nor for `/metrics` where a token guards that: without
    one it is for this machine, and so for the browsers on it, which a foreign domain could send there.
    """

    def __init__(self, app: ASGIApp, patterns: Sequence[str], *, metrics_guarded: bool = False) -> None:
        self._app = app
        self._patterns = [pattern.lower() for pattern in patterns]
        self._metrics_guarded = metrics_guarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket") or self._is_free(scope["path"]) or self._trusts(scope):
            await self._app(scope, receive, send)
            return
        await problem_answer(Problem(400, "This server does not answer for this host."), scope)(scope, receive, send)

    def _is_free(self, path: str) -> bool:
        return path.startswith(HEALTH) or (self._metrics_guarded and path == METRICS)

    def _trusts(self, scope: Scope) -> bool:
        found = _HOST.fullmatch(Headers(scope=scope).get("host", ""))
        if found is None:
            return False
        host = found.group(1).lower()
        # `*.example.org` stands for the hosts below it, and not for `example.org` itself.
        return any(
            host == pattern or pattern == "*" or (pattern.startswith("*.") and host.endswith(pattern[1:]))
            for pattern in self._patterns
        )


class TLSRedirect:
    """ASGI middleware that sends requests which came without TLS to the same address with it (308 keeps the method).

    Not for `/health/` and `/metrics`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        plain = {"http": "https", "ws": "wss"}.get(scope.get("scheme", ""))
        free = scope["path"].startswith(HEALTH) or scope["path"] == METRICS
        if scope["type"] not in ("http", "websocket") or plain is None or free:
            await self._app(scope, receive, send)
            return
        found = _HOST.fullmatch(Headers(scope=scope).get("host", ""))
        if found is None:
            await problem_answer(Problem(400, "The Host header is missing or malformed."), scope)(scope, receive, send)
            return
        # The port of the plain address serves no TLS; but one that a proxy shares between both is neither's default.
        netloc = found.group(1) if found.group(2) in (None, "80") else found.group(0)
        path = scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1") or quote(scope["path"])
        query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
        await Response(status_code=308, headers={"Location": f"{plain}://{netloc}{path}{query}"})(scope, receive, send)
