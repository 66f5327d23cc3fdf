"""What an OpenTelemetry receiver is told. Imported only for that: the extra `telemetry` brings the libraries.

The libraries note addresses with their queries, and errors in the words of MongoDB and Redis, which quote documents and
arguments. So each span is made anew of what is known to hold nothing that a client chose.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.pymongo import PymongoInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import OTELResourceDetector, Resource, get_aggregated_resources
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, Status

#: How long the server's end waits for a receiver that does not answer. What was not sent by then is lost.
FLUSH_SECONDS: Final = 5.0

_ERROR_TYPE: Final = "error.type"
#: The attributes that are sent, by the conventions' old names and their new ones.
_KEPT: Final[Mapping[SpanKind, frozenset[str]]] = {
    SpanKind.SERVER: frozenset(
        {
            "http.request.method",
            "http.response.status_code",
            "http.route",
            "network.protocol.version",
            "url.scheme",
            _ERROR_TYPE,
        }
    ),
    SpanKind.CLIENT: frozenset(
        {
            "db.collection.name",
            "db.mongodb.collection",
            "db.name",
            "db.namespace",
            "db.redis.args_length",
            "db.redis.database_index",
            "db.redis.pipeline_length",
            "db.system",
            "db.system.name",
            "net.peer.name",
            "net.peer.port",
            "server.address",
            "server.port",
            _ERROR_TYPE,
        }
    ),
}


@contextlib.asynccontextmanager
async def exporting(endpoint: str) -> AsyncIterator[None]:
    """Send spans to the receiver at `endpoint`, until the block ends."""
    exporter = _Exporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    # The name is what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES may replace.
    resource = get_aggregated_resources([OTELResourceDetector()], Resource({"service.name": "headwater"}))
    provider = TracerProvider(resource=resource, sampler=ParentBased(root=_Requests()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    pymongo, redis = PymongoInstrumentor(), RedisInstrumentor()
    pymongo.instrument(tracer_provider=provider, capture_statement=False, failed_hook=_note_code)
    redis.instrument(tracer_provider=provider)
    try:
        yield
    finally:
        redis.uninstrument()
        pymongo.uninstrument()
        # Ends the attempts that the provider waits for, each of which would take the receiver's time-out.
        lost = asyncio.get_running_loop().call_later(FLUSH_SECONDS, exporter.shutdown)
        await asyncio.to_thread(provider.shutdown)
        lost.cancel()


class _Requests(Sampler):
    """Takes the traces that requests begin: reading the change stream would be a trace without end."""

    def should_sample(
        self,
        parent_context: Context | None,  # noqa: ARG002 - the names are the library's
        trace_id: int,  # noqa: ARG002
        name: str,  # noqa: ARG002
        kind: SpanKind | None = None,
        *_: Any,
        **__: Any,
    ) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE if kind is SpanKind.SERVER else Decision.DROP)

    def get_description(self) -> str:
        return "requests"


class _Exporter(OTLPSpanExporter):
    """Sends spans without what they must not tell; in the thread that sends, not where requests wait."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return super().export([_without_values(span) for span in spans])


def _without_values(span: ReadableSpan) -> ReadableSpan:
    kept = _KEPT.get(span.kind, frozenset())
    attributes = {name: value for name, value in (span.attributes or {}).items() if name in kept}
    for event in span.events:
        # Of an exception its class is told, not its message or its stack.
        attributes.setdefault(_ERROR_TYPE, (event.attributes or {}).get("exception.type", "unknown"))
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _note_code(span: trace.Span, event: Any) -> None:
    """Tell by its name why MongoDB refused a command; its message quotes documents."""
    span.set_attribute(_ERROR_TYPE, str(event.failure.get("codeName", "unknown")))
