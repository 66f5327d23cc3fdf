"""Secrecy: every secret that this run uses, and a listener to everything that its servers say.

Requests and answers of `httpx`, frames of `websockets` and the log files of the run's processes pass through here. A
secret is learned where it is used or issued (a password in a body, a token in a header, the answer to a sign-in), and
must occur nowhere else: in no other answer, no header, no frame, no line of a log.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from websockets.asyncio.client import ClientConnection as AsyncSocket
from websockets.sync.client import ClientConnection as Socket

#: Fields of requests and messages that hold secrets.
_SECRET_FIELDS = frozenset(
    {
        "password",
        "new_password",
        "current_password",
        "refresh_token",
        "access_token",
        "token",
        "ticket",
        "key",
        "api_key",
    }
)
_SECRET_FIELDS_OF_ANSWERS = {
    "/auth/login": ("access_token", "refresh_token"),
    "/auth/refresh": ("access_token", "refresh_token"),
    "/auth/ticket": ("ticket",),
    "/api-keys": ("key",),
}
#: A shorter one, or `aaaaaaaaaaaaa`, would be found by chance.
_MIN_LENGTH, _MIN_LETTERS = 12, 6
#: What nobody may print, known or not: a hash of a password anywhere; a signed token or an API key in a log.
_HASHES = re.compile(r"\$argon2(?:id|i|d)\$v=")
_TOKENS = re.compile(r"eyJ[\w-]{10,}\.[\w-]{10,}\.|hw_[\w-]{24,}")
#: The end of a piece of a stream is looked at again together with the next piece.
_OVERLAP = 1_000
_REMEMBERED = 20_000


class Secrecy:
    """What is secret, and where it was heard all the same."""

    def __init__(self) -> None:
        self.known: list[str] = []
        self.leaks: list[str] = []
        self._seen: set[str] = set()
        self._heard: set[int] = set()
        self._paused = False

    def learn(self, *secrets: object) -> None:
        """These must not be heard from now on, nor the hashes that stand for them in the database."""
        for secret in secrets:
            if not isinstance(secret, str) or len(secret) < _MIN_LENGTH or len(set(secret)) < _MIN_LETTERS:
                continue
            if secret not in self._seen:
                self._seen.add(secret)
                digest = hashlib.sha256(secret.encode(errors="replace"))
                encoded = base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
                self.known += [secret, digest.hexdigest(), encoded]

    def hear(self, text: str | bytes, where: str, *, log: bool = False) -> None:
        """Look for every secret in what a server said at `where`."""
        if self._paused:
            return
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        # The same frame goes to hundreds of sockets.
        if (key := hash((text, log))) in self._heard:
            return
        if len(self._heard) >= _REMEMBERED:
            self._heard.clear()
        self._heard.add(key)
        found = [secret for secret in self.known if secret in text]
        found += [match.group() for match in _HASHES.finditer(text)]
        if log:
            found += [match.group() for match in _TOKENS.finditer(text)]
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        self.leaks += [f"{where}: {secret[:12]}… ({test})" for secret in found]

    def hear_logs(self, folder: Path) -> int:
        """Look through all log files below `folder`; returns how many there were."""
        paths = [path for path in sorted(folder.rglob("*.log*")) if path.is_file()]
        for path in paths:
            self.hear(path.read_bytes(), str(path.relative_to(folder)), log=True)
        return len(paths)

    def check(self) -> None:
        """Fail if a secret was heard."""
        assert not self.leaks, "secrets got out:\n" + "\n".join(sorted(set(self.leaks)))

    def learn_from(self, body: bytes | str) -> None:
        """Learn the secrets in a JSON body or message that a client sends."""
        with contextlib.suppress(ValueError, RecursionError):
            content = json.loads(body)
            if isinstance(content, dict):
                self.learn(*(content.get(name) for name in _SECRET_FIELDS))

    def request(self, request: httpx.Request) -> None:
        """Learn what a request carries."""
        self.learn(request.headers.get("x-api-key"), request.headers.get("authorization", "").partition(" ")[2])
        self.learn(request.url.params.get("ticket"))
        with contextlib.suppress(httpx.RequestNotRead):
            self.learn_from(request.content)

    def answer(self, response: httpx.Response, body: bytes) -> None:
        """Hear an answer; what is meant to carry a secret teaches it."""
        request = response.request
        where = f"{request.method} {request.url.path} -> {response.status_code}"
        self.hear("\n".join(f"{name}: {value}" for name, value in response.headers.items()), f"{where} (headers)")
        issued = next((f for path, f in _SECRET_FIELDS_OF_ANSWERS.items() if request.url.path.endswith(path)), ())
        if issued and request.method == "POST" and response.is_success:
            content = json.loads(body)
            self.learn(*(content.pop(name, None) for name in issued))
            body = json.dumps(content).encode()
        self.hear(body, where)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Secrecy]:
        """Hear everything that HTTP and WebSocket clients of this process receive, until the block ends."""
        with contextlib.ExitStack() as stack:
            for owner, name, wrapper in (
                (httpx.Client, "send", self._sending),
                (httpx.AsyncClient, "send", self._sending_async),
                (Socket, "recv", self._receiving),
                (AsyncSocket, "recv", self._receiving_async),
                (Socket, "send", self._telling),
                (AsyncSocket, "send", self._telling),
            ):
                original = getattr(owner, name)
                stack.enter_context(mock.patch.object(owner, name, functools.wraps(original)(wrapper(original))))
            yield self

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Hear nothing: what the tests of the listener let out is no fault of the run."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _sending(self, send: Any) -> Any:
        def sending(client: Any, request: httpx.Request, **options: Any) -> httpx.Response:
            self.request(request)
            response: httpx.Response = send(client, request, **options)
            self._tap(response)
            return response

        return sending

    def _sending_async(self, send: Any) -> Any:
        async def sending(client: Any, request: httpx.Request, **options: Any) -> httpx.Response:
            self.request(request)
            response: httpx.Response = await send(client, request, **options)
            self._tap(response)
            return response

        return sending

    def _tap(self, response: httpx.Response) -> None:
        try:
            self.answer(response, response.content)
        except httpx.ResponseNotRead:
            self.answer(response, b"")
            self._tap_stream(response)

    def _tap_stream(self, response: httpx.Response) -> None:
        where, pieces, pieces_async = str(response.request.url.path), response.iter_bytes, response.aiter_bytes
        tail = b""

        def hear(piece: bytes) -> bytes:
            nonlocal tail
            self.hear(tail + piece, f"stream of {where}")
            tail = piece[-_OVERLAP:]
            return piece

        def iter_bytes(chunk_size: int | None = None) -> Iterator[bytes]:
            for piece in pieces(chunk_size):
                yield hear(piece)

        async def aiter_bytes(chunk_size: int | None = None) -> Any:
            async for piece in pieces_async(chunk_size):
                yield hear(piece)

        response.iter_bytes, response.aiter_bytes = iter_bytes, aiter_bytes  # type: ignore[method-assign]

    def _receiving(self, recv: Any) -> Any:
        def receiving(socket: Any, *args: Any, **options: Any) -> Any:
            frame = recv(socket, *args, **options)
            self.hear(frame, "a frame")
            return frame

        return receiving

    def _receiving_async(self, recv: Any) -> Any:
        async def receiving(socket: Any, *args: Any, **options: Any) -> Any:
            frame = await recv(socket, *args, **options)
            self.hear(frame, "a frame")
            return frame

        return receiving

    def _telling(self, send: Any) -> Any:
        def telling(socket: Any, message: Any, *args: Any, **options: Any) -> Any:
            if isinstance(message, str):
                self.learn_from(message)
            return send(socket, message, *args, **options)

        return telling


#: This process's. The fixture `secrecy` listens with it from the first test to the last.
SECRECY = Secrecy()
