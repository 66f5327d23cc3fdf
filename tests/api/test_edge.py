"""What is decided before a route is asked: hosts, TLS, origins, compression."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.compression import Compression
from api.hosts import TLSRedirect, TrustedHosts
from api.middleware import Envelope, LastResort
from api.origins import Origins
from tests.api.servers import Server, User
from tests.api.test_errors import problem

ALLOWED = "https://app.example.org"


async def answering(request: Request) -> Response:
    """An application that is glad to be asked."""
    return PlainTextResponse(str(request.url))


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application with a fault."""
    del scope, receive, send
    raise RuntimeError


PLAIN = Starlette(routes=[Route("/{path:path}", answering)])


def client(app: ASGIApp, base: str = "http://api.example.org") -> httpx.AsyncClient:
    """A client of an application in its envelope."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(Envelope(app)), base_url=base)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("api.example.org", 200),
        ("API.example.org:8443", 200),
        ("a.internal", 200),
        ("a.b.internal:1", 200),
        ("[2001:db8::1]:80", 200),
        ("internal", 400),
        ("evil-internal", 400),
        ("api.example.org.evil.example", 400),
        ("evil.example", 400),
        ("api.example.org@evil.example", 400),
        ("api.example.org:x", 400),
        ("api.example.org/", 400),
        ("", 400),
    ],
)
async def test_host(host: str, status: int) -> None:
    """Others than the trusted ones are refused."""
    app = TrustedHosts(PLAIN, ["api.example.org", "*.Internal", "[2001:db8::1]"])
    async with client(app) as asking:
        answer = await asking.get("/api/v1/posts", headers={"Host": host})
        assert answer.status_code == status
        if status == 400:
            problem(answer, 400, "bad_request")
        # Probes ask by the address of the machine.
        assert (await asking.get("/health/live", headers={"Host": host})).status_code == 200
        assert (await asking.get("/metrics", headers={"Host": host})).status_code == status
    async with client(TrustedHosts(PLAIN, ["api.example.org"], metrics_guarded=True)) as asking:
        # So does Prometheus, where a token keeps others out.
        assert (await asking.get("/metrics", headers={"Host": host})).status_code == 200
        assert (await asking.get("/metrics/", headers={"Host": "evil.example"})).status_code == 400


async def handshake(app: ASGIApp, *, denial: bool, **scope: Any) -> list[dict[str, Any]]:
    """What is sent in answer to a WebSocket's handshake."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    extensions: dict[str, Any] = {"websocket.http.response": {}} if denial else {}
    given = {"type": "websocket", "path": "/api/v1/ws", "query_string": b"a=1", "extensions": extensions, **scope}
    await Envelope(app)(given, receive, send)
    return sent


async def test_handshake_for_another_host() -> None:
    """Is refused as well, by a server that cannot send an answer too."""
    app = TrustedHosts(PLAIN, ["api.example.org"])
    start, body = await handshake(app, denial=True, headers=[(b"host", b"evil.example")], scheme="ws")
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 400)
    assert json.loads(body["body"])["code"] == "bad_request"
    (close,) = await handshake(app, denial=False, headers=[(b"host", b"evil.example")], scheme="ws")
    assert close["type"] == "websocket.close"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("http://api.example.org/a%2Fb?c=%20d&e", "https://api.example.org/a%2Fb?c=%20d&e"),
        ("http://api.example.org:80/", "https://api.example.org/"),
        ("http://api.example.org:8080/", "https://api.example.org:8080/"),
        ("http://api.example.org//evil.example/", "https://api.example.org//evil.example/"),
    ],
)
async def test_request_without_tls(url: str, location: str) -> None:
    """Is sent to the same address with it, and keeps its method."""
    async with client(TLSRedirect(PLAIN)) as asking:
        answer = await asking.post(url, content=b"x")
    assert (answer.status_code, answer.headers["location"]) == (308, location)


async def test_plain_port_in_the_host() -> None:
    """Is left out of the address with TLS. (httpx does so with one in a URL by itself.)"""
    async with client(TLSRedirect(PLAIN)) as asking:
        answer = await asking.get("http://api.example.org/a", headers={"Host": "api.example.org:80"})
    assert answer.headers["location"] == "https://api.example.org/a"


async def test_request_with_tls() -> None:
    """Goes through; so do probes and Prometheus without."""
    async with client(TLSRedirect(PLAIN)) as asking:
        assert (await asking.get("https://api.example.org/a")).status_code == 200
        assert (await asking.get("http://10.0.0.1/health/live")).status_code == 200
        assert (await asking.get("http://10.0.0.1:8000/metrics")).status_code == 200
        problem(await asking.get("http://api.example.org/a", headers={"Host": "a b"}), 400, "bad_request")


async def test_handshake_without_tls() -> None:
    """Is sent to wss."""
    start, _ = await handshake(TLSRedirect(PLAIN), denial=True, headers=[(b"host", b"a.example")], scheme="ws")
    assert start["status"] == 308
    assert dict(start["headers"])[b"location"] == b"wss://a.example/api/v1/ws?a=1"


def test_preflight(server: Server) -> None:
    """Whatever the API understands may be sent from an allowed page, by an allowed method."""
    url = f"{server.url}/api/v1/posts"
    sent = "authorization, x-api-key, idempotency-key, last-event-id, x-api-version, if-match, if-modified-since"
    asking = {"Origin": ALLOWED, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": sent}
    answer = httpx.options(url, headers=asking)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert "x-request-id" in answer.headers
    for refused in (
        {"Origin": "https://evil.example"},
        {"Access-Control-Request-Method": "TRACE"},
        {"Access-Control-Request-Headers": "x-evil"},
    ):
        problem(httpx.options(url, headers=asking | refused), 400, "bad_request")


@pytest.mark.parametrize("path", ["/api/v1/posts/1", "/api/v1/posts?x", "/api/v1/users/me", "/api/v1/nope"])
def test_errors_for_a_page_of_another_origin(server: Server, path: str) -> None:
    """Can be read by it."""
    answer = httpx.get(server.url + path, headers={"Origin": ALLOWED})
    assert answer.status_code >= 400
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert "Retry-After" in answer.headers["access-control-expose-headers"]


async def test_fault_for_a_page_of_another_origin() -> None:
    """Can be read by it, too."""
    app = Origins(LastResort(failing), [ALLOWED])
    async with client(app) as asking:
        answer = await asking.get("/", headers={"Origin": ALLOWED})
    problem(answer, 500, "internal_error")
    assert answer.headers["access-control-allow-origin"] == ALLOWED


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd, br, gzip", "zstd"),
        ("zstd;q=0.2, br;q=0.3, gzip;q=0.4", "gzip"),
        ("zstd;q=0, *", "br"),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0", None),
        ("*;q=0", None),
        ("identity", None),
        ("x", None),
    ],
)
def test_coding(alice: User, title: str, accepted: str, coding: str | None) -> None:
    """Is one that the client accepts; entity tag and conditions are the same with and without."""
    made = alice.client.post("/posts", json={"title": title, "body": "Water. " * 500})
    plain = alice.client.get(f"/posts/{made.json()['id']}", headers={"Accept-Encoding": "identity"})
    coded = alice.client.get(f"/posts/{made.json()['id']}", headers={"Accept-Encoding": accepted})
    assert coded.headers.get("content-encoding") == coding
    assert coded.json() == plain.json()
    assert (int(coded.headers["content-length"]) < 1_000) is (coding is not None)
    same = {"If-None-Match": coded.headers["etag"], "Accept-Encoding": accepted}
    unchanged = alice.client.get(f"/posts/{made.json()['id']}", headers=same)
    assert unchanged.status_code == 304
    for answer in (plain, coded, unchanged):
        assert answer.headers["etag"] == made.headers["etag"]
        varies = [name.strip() for name in answer.headers["vary"].split(",")]
        assert "Accept-Encoding" in varies
        assert len(varies) == len(set(varies))
    changed = alice.client.patch(
        f"/posts/{made.json()['id']}", json={"body": "Less."}, headers={"If-Match": coded.headers["etag"]}
    )
    assert changed.status_code == 200
    # What fits into one packet is sent as it is.
    assert "content-encoding" not in changed.headers


def test_small_answer_to_somebody_who_wants_no_plain_one(server: Server) -> None:
    """Is compressed, too."""
    url = f"{server.url}/health/live"
    for excluded in ("identity;q=0", "*;q=0"):
        answer = httpx.get(url, headers={"Accept-Encoding": f"gzip, {excluded}"})
        assert (answer.headers["content-encoding"], answer.status_code) == ("gzip", 200)
    assert "content-encoding" not in httpx.get(url, headers={"Accept-Encoding": "gzip"}).headers


def test_event_stream_is_not_compressed(server: Server) -> None:
    """An event leaves at once."""
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, br, zstd"}
    with httpx.stream("GET", f"{server.url}/api/v1/posts", headers=headers, timeout=30) as answer:
        assert "content-encoding" not in answer.headers
        assert next(answer.iter_text())


async def test_export_is_flushed() -> None:
    """Each part of a streamed answer arrives when it was sent, compressed or not."""
    parts = [json.dumps({"n": number}).encode() + b"\n" for number in range(3)]

    async def rows() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    async def export(request: Request) -> Response:
        del request
        return StreamingResponse(rows(), media_type="application/x-ndjson")

    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "scheme": "http"}
    headers = [(b"accept-encoding", b"gzip")]
    await Compression(Starlette(routes=[Route("/", export)]))({**scope, "headers": headers}, receive, send)
    assert (b"content-encoding", b"gzip") in sent[0]["headers"]
    reader, read = zlib.decompressobj(31), []
    for message in sent[1:4]:
        read.append(reader.decompress(message["body"]))
    assert read == parts


async def test_stored_file() -> None:
    """Is sent as it is: ranges count its own bytes."""

    async def content(request: Request) -> Response:
        del request
        return JSONResponse(["Water."] * 500)

    app = Starlette(routes=[Route("/api/v1/files/{id}/content", content), Route("/api/v1/files/{id}", content)])
    async with client(Compression(app)) as asking:
        assert "content-encoding" not in (await asking.get("/api/v1/files/1/content")).headers
        assert "content-encoding" in (await asking.get("/api/v1/files/1")).headers
