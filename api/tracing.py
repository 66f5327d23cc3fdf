"""Traces by OpenTelemetry, over OTLP: a span for each request, and below it those of MongoDB and Redis."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog
from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from starlette.types import ASGIApp, Receive, Scope, Send

from api.request_log import PROBES
from api.settings import SettingsRefused

MISSING: Final = "HEADWATER_OTLP_ENDPOINT needs the extra `telemetry`: pip install 'headwater[telemetry]'"


def tracing(endpoint: str) -> AbstractAsyncContextManager[None]:
    """Send traces to the receiver at `endpoint` (OTLP over HTTP, without its path). Once a process.

    Begin before the clients of the database and of Redis are made. Raises SettingsRefused without the extra.
    """
    try:
        from api.spans import exporting
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("opentelemetry"):
            raise SettingsRefused([MISSING]) from None
        raise
    return exporting(endpoint)


def telemetry(traced: bool) -> TelemetryConfig:
    """What FastAPI reports by itself. Nothing but requests: `/metrics` has the figures, the log has the errors."""
    return {
        "tracing": traced,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": _untraced,
    }


def _untraced(scope: Scope) -> bool:
    # A socket lives for hours, and what it reads belongs to no request.
    return scope["type"] != "http" or scope["path"] in PROBES


class TraceIds:
    """ASGI middleware that puts a request's `trace_id` into its log lines."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        span = trace.get_current_span().get_span_context()
        if not span.is_valid:
            await self._app(scope, receive, send)
            return
        with structlog.contextvars.bound_contextvars(trace_id=trace.format_trace_id(span.trace_id)):
            await self._app(scope, receive, send)
