"""Traces, as an OTLP receiver gets them."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError
from redis import Redis
from redis.exceptions import ResponseError

from api.spans import exporting
from tests.api.conftest import Starter
from tests.api.servers import PASSWORD, refused_start, serving, wait_until
from tests.redis_server import running_redis


class Receiver(ThreadingHTTPServer):
    """An OTLP receiver that keeps the spans which it was sent."""

    def __init__(self) -> None:
        self.by_id: dict[bytes, Span] = {}
        self.text = ""
        self.services: set[str] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def spans(self) -> list[Span]:
        """All of them. Sent again, they are the same."""
        return list(self.by_id.values())

    @property
    def url(self) -> str:
        """Where to send to."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(body)
        self.server.text += str(request)
        for resource in request.resource_spans:
            told = resource.resource.attributes
            self.server.services |= {found.value.string_value for found in told if found.key == "service.name"}
            for scope in resource.scope_spans:
                self.server.by_id |= {span.span_id: span for span in scope.spans}
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """One that listens."""
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def attributes(span: Span) -> dict[str, str | int]:
    """What a span tells besides its name and its times."""
    return {found.key: found.value.string_value or found.value.int_value for found in span.attributes}


def test_requests(receiver: Receiver, tmp_path: Path, server_settings: Starter, free_port: Callable[[], int]) -> None:
    """Each is a span below its client's, and above those of MongoDB and Redis; none tells what the client has sent."""
    traces = {name: secrets.token_hex(16) for name in ("list", "taken", "nowhere", "page", "health")}
    parent = secrets.token_hex(8)

    def headers(name: str) -> dict[str, str]:
        return {"traceparent": f"00-{traces[name]}-{parent}-01", "User-Agent": "otter", "Host": "otter.example.org"}

    def spans(name: str, kind: Span.SpanKind.ValueType = Span.SPAN_KIND_SERVER) -> list[Span]:
        return [span for span in receiver.spans if span.trace_id.hex() == traces[name] and span.kind == kind]

    with running_redis(tmp_path, free_port()) as redis:
        settings = server_settings(otlp_endpoint=receiver.url, redis_url=redis.url, log_format="json")
        settings |= {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_SERVICE_NAME": "weir"}
        with serving(tmp_path, free_port(), settings) as server:
            client = server.client()
            assert client.get(f"{server.url}/health/ready", headers=headers("health")).status_code == 200
            assert client.get("/posts?title=otter-weir", headers=headers("list")).status_code == 200
            server.register("otter")
            body = {"username": "otter", "email": "otter@example.org", "password": PASSWORD}
            assert client.post("/auth/register", json=body, headers=headers("taken")).status_code == 409
            assert client.get("/otters/otter", headers=headers("nowhere")).status_code == 404
            assert client.get(f"{server.url}/docs?otter", headers=headers("page")).status_code == 200
            # Spans arrive in the order in which they end.
            wait_until(lambda: spans("page"))
            lines = [json.loads(line) for line in server.stop().splitlines() if '"headwater.access"' in line]

    (listed,) = spans("list")
    assert listed.parent_span_id.hex() == parent
    assert listed.name == "GET /api/v1/posts"
    assert attributes(listed) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/api/v1/posts",
        "network.protocol.version": "1.1",
        "url.scheme": "http",
    }
    below = spans("list", Span.SPAN_KIND_CLIENT)
    assert {attributes(span)["db.system"] for span in below} == {"mongodb", "redis"}
    assert {span.parent_span_id for span in below} == {listed.span_id}
    assert [span.name for span in spans("nowhere")] == ["GET"]
    assert [span.name for span in spans("page")] == ["GET /docs"]
    assert spans("health") == []
    (taken,) = spans("taken")
    assert (taken.name, attributes(taken)["http.response.status_code"]) == ("POST /api/v1/auth/register", 409)
    # What no request has asked for makes no trace.
    served = {span.trace_id for span in receiver.spans if span.kind == Span.SPAN_KIND_SERVER}
    assert {span.trace_id for span in receiver.spans} == served
    assert "otter" not in receiver.text
    assert receiver.services == {"weir"}
    assert {line["route"]: line["trace_id"] for line in lines if line.get("trace_id") in traces.values()} == {
        "/api/v1/posts": traces["list"],
        "/api/v1/auth/register": traces["taken"],
        "unmatched": traces["nowhere"],
        "/docs": traces["page"],
    }


async def test_commands_that_fail(
    receiver: Receiver, tmp_path: Path, mongodb_url: str, database_name: str, free_port: Callable[[], int]
) -> None:
    """Their spans tell the kind of the error, not its message, which quotes documents and arguments."""
    with running_redis(tmp_path, free_port()) as server:
        async with exporting(receiver.url):
            served = trace.get_tracer(__name__).start_as_current_span("GET", kind=trace.SpanKind.SERVER)
            with served, MongoClient[dict[str, Any]](mongodb_url) as mongo, Redis.from_url(server.url) as redis:
                posts = mongo[database_name].posts
                posts.create_index("title", unique=True)
                posts.insert_many([{"title": "otter"}, {"title": "heron"}])
                with pytest.raises(DuplicateKeyError, match="otter"):
                    posts.find_one_and_update({"title": "heron"}, {"$set": {"title": "otter"}})
                with pytest.raises(ResponseError, match="otter"):
                    redis.pipeline().set("title", "otter").lpush("title", "otter").execute()
                mongo.drop_database(posts.database)
    failed = [span for span in receiver.spans if span.status.code == Status.STATUS_CODE_ERROR]
    assert [(span.name.rpartition(".")[2], attributes(span)["error.type"]) for span in failed] == [
        ("findAndModify", "DuplicateKey"),
        ("SET LPUSH", "redis.exceptions.ResponseError"),
    ]
    assert [(span.status.message, len(span.events)) for span in failed] == [("", 0)] * 2
    assert "otter" not in receiver.text


@pytest.fixture
def without_the_extra(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH that hides the extra's packages."""
    # Python runs this first; what is None cannot be imported. FastAPI brings the rest of the namespace.
    hidden = "import sys\nfor name in ('sdk', 'exporter', 'instrumentation'):\n"
    (tmp_path / "sitecustomize.py").write_text(hidden + "    sys.modules[f'opentelemetry.{name}'] = None\n")
    return tmp_path


def test_without_the_extra(tmp_path: Path, server_settings: Starter, without_the_extra: Path) -> None:
    """The server does not start, and says in one line what to install."""
    settings = server_settings(otlp_endpoint="http://127.0.0.1:4318")
    code, output = refused_start(tmp_path, settings, without_the_extra)
    told = "headwater: HEADWATER_OTLP_ENDPOINT needs the extra `telemetry`: pip install 'headwater[telemetry]'"
    assert (code, output.splitlines()[-1]) == (1, told)
    assert "Traceback" not in output


def test_without_the_extra_and_the_setting(
    tmp_path: Path, server_settings: Starter, free_port: Callable[[], int], without_the_extra: Path
) -> None:
    """The server serves."""
    with serving(tmp_path, free_port(), server_settings(), without_the_extra) as server:
        assert server.client().get("/posts").status_code == 200


def test_receiver_that_is_away(tmp_path: Path, server_settings: Starter, free_port: Callable[[], int]) -> None:
    """Requests are answered, and the server ends in time."""
    settings = server_settings(otlp_endpoint=f"http://127.0.0.1:{free_port()}")
    settings |= {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
    with serving(tmp_path, free_port(), settings) as server:
        assert server.client().get("/posts").status_code == 200
        wait_until(lambda: "Transient error" in server.log)
        began = time.monotonic()
        assert "Application shutdown complete" in server.stop()
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("address", ["127.0.0.1:4318", "ftp://x", "http://"])
def test_address_that_is_none(tmp_path: Path, server_settings: Starter, address: str) -> None:
    """It is refused at the start."""
    code, output = refused_start(tmp_path, server_settings(otlp_endpoint=address))
    assert (code, "HEADWATER_OTLP_ENDPOINT" in output) == (1, True)
