"""NDJSON import: a stream of documents in, a stream of results out, in the same order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi import Request, Response
from starlette.types import Message, Receive, Scope, Send

from api.bodies import check_length, check_media_type, decode_body
from api.callers import caller_by_now, challenge_unless_signed_in
from api.idempotency import claim_id, create_once, key_of
from api.negotiation import COMMON_HEADERS, NDJSON
from api.problems import Problem, problem_content, problem_of
from api.services import Caller, Services
from documents import Forbidden, Found, InvalidInput, ResourceClass, as_new, encode_json, repeatable_ids

logger = logging.getLogger("headwater.api")

#: Results that may wait for a client who reads nothing before it has sent everything. Past it the body is not read on.
WAITING_BYTES = 4 * 1024 * 1024
#: How many faults a result names, and how much the results may tell of refused lines before they say only the code.
MAX_ERRORS, DETAILED_BYTES = 10, 1024 * 1024
#: A client that takes nothing for this long is given up.
STALL_SECONDS = 60.0
#: How often the caller is looked at again: an import may outlive the right to it.
RECHECK_SECONDS = 1.0

#: The id for the document in a line of the request; None: a new one.
IdOf = Callable[[int, bytes], Any]


async def import_lines(request: Request, resource: ResourceClass, caller: Caller, services: Services) -> Response:
    """The answer that creates a document for each line of the body. Raises what concerns the request as a whole.

    With a key, each line's document has an id that follows from the key, the line's number and its content. So a
    repeated import, also one that was broken off, creates what is missing and finds the rest.
    """
    check_media_type(request, (NDJSON,))
    check_length(request, services.settings.max_upload_bytes)
    key = key_of(request)
    if key is not None:
        challenge_unless_signed_in(caller)
    try:
        services.store.check_create(resource, caller.principal)
    except Forbidden:
        challenge_unless_signed_in(caller)
        raise
    id_of: IdOf = _new_id
    if key is not None:
        seed = await services.claims.seed(claim_id(request, caller, key))
        ids = repeatable_ids(resource, seed)
        if ids is None:
            msg = f"{resource.name} make their own ids, so an import cannot be repeated safely"
            raise InvalidInput.at("header", "Idempotency-Key", msg=msg, type="idempotency_key")
        id_of = ids
    return ImportStream(request, resource, caller, services, id_of)


def _new_id(_line: int, _content: bytes) -> Any:
    return None


class ImportStream(Response):
    """Creates documents and sends their results while the body arrives.

    Memory is bounded by a few chunks, one line and WAITING_BYTES. The import ends early, after a last result that says
    so, when it cannot go on: the body is too large, the caller may not act any more, the database is away.
    """

    def __init__(
        self, request: Request, resource: ResourceClass, caller: Caller, services: Services, id_of: IdOf
    ) -> None:
        super().__init__(status_code=200, media_type=NDJSON, headers=COMMON_HEADERS)
        del self.headers["content-length"]
        self._request = request
        self._resource = resource
        self._caller = caller
        self._services = services
        self._id_of = id_of
        self._checked_at = time.monotonic()
        self._told_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - an ASGI application
        """Run the import until the body ends or the client goes away."""
        settings = self._services.settings
        body = _Body(receive, settings.max_body_bytes, settings.max_upload_bytes)
        results = _Results(send)
        try:
            # Before the head is sent: until then the server still answers `Expect: 100-continue`.
            await body.begin()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            number = 0
            async with contextlib.aclosing(body.lines()) as lines:
                async for number, content in lines:
                    result = await self._result(number, content)
                    await results.put(encode_json(result) + b"\n")
                    if result["status"] >= 500 or result["status"] == 401 or body.refused:
                        break
                    if body.client_left:
                        break
            if body.client_left:
                logger.info("import into %s: the client left after line %d", self._resource.name, number)
            else:
                await results.end()
        except TimeoutError:
            # The server closes the connection of an answer that was not completed.
            logger.info("import into %s: the client takes nothing", self._resource.name)
        finally:
            await body.close()
            await results.close()

    async def _result(self, number: int, content: bytes | Problem) -> dict[str, Any]:
        try:
            if isinstance(content, Problem):
                raise content
            await self._recheck()
            document = await decode_body(content)
            found = await self._create(number, content, document)
        except Exception as error:
            problem = problem_of(error)
            if problem.status == 500:
                logger.exception("import into %s: line %d failed", self._resource.name, number)
            return {"line": number, "status": problem.status, "error": self._told(problem)}
        return {"line": number, "status": 201, "id": found.document["id"]}

    def _told(self, problem: Problem) -> dict[str, Any]:
        """What a result says of a refusal. Short lines may have long faults, so that is bounded, in each and in all."""
        if self._told_bytes > DETAILED_BYTES:
            return {"code": problem.code}
        problem.errors = problem.errors[:MAX_ERRORS]
        scope, state = self._request.scope, self._request.state
        content = problem_content(problem, path=scope["path"], request_id=state.request_id)
        self._told_bytes += len(encode_json(content))
        return content

    async def _create(self, number: int, content: bytes, line: Any) -> Found:
        document_id, body = as_new(self._resource, self._caller.principal, line)
        if document_id is None:
            return await create_once(self._resource, self._caller, self._services, body, self._id_of(number, content))
        try:
            # That there is one of this id already does not mean that an earlier attempt has made it.
            return await self._services.store.create(
                self._resource, self._caller.principal, body, document_id=document_id
            )
        except Forbidden:
            challenge_unless_signed_in(self._caller)
            raise

    async def _recheck(self) -> None:
        """Take the caller's rights as they are by now. Raises a 401 Problem when the session has ended."""
        if time.monotonic() - self._checked_at > RECHECK_SECONDS:
            self._caller = await caller_by_now(self._request)
            self._checked_at = time.monotonic()


class _Body:
    """A request's body, line by line. One chunk is read ahead, which also tells soon that the client has left."""

    def __init__(self, receive: Receive, line_max_bytes: int, max_bytes: int) -> None:
        self.client_left = False
        #: Whether the body is larger than `max_bytes`; the last line is then a Problem that says so.
        self.refused = False
        self._receive = receive
        self._line_max_bytes = line_max_bytes
        self._max_bytes = max_bytes
        self._ahead: asyncio.Task[Message] | None = None

    async def begin(self) -> None:
        """Wait for the first chunk. Raises what says that none comes: nothing has been answered yet."""
        self._ahead = asyncio.ensure_future(self._receive())
        await asyncio.wait({self._ahead})
        self._ahead.result()

    async def close(self) -> None:
        """Stop reading."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)

    async def lines(self) -> AsyncGenerator[tuple[int, bytes | Problem], None]:
        """Numbers, counted from 1, and contents of the lines that are not blank; a Problem for one that is too long."""
        number, received, rest, skipping = 1, 0, bytearray(), False
        async for chunk in self._chunks():
            received += len(chunk)
            if received > self._max_bytes:
                self.refused = True
                yield number, Problem(413, f"The body is larger than {self._max_bytes} bytes; the import ends here.")
                return
            *ended, begun = chunk.split(b"\n")
            for piece in ended:
                line = bytes(rest + piece)
                rest.clear()
                if skipping:
                    skipping = False
                elif len(line) > self._line_max_bytes:
                    yield number, self._too_long()
                elif line.strip():
                    yield number, line
                number += 1
                if self._has_left():
                    return
            if not skipping:
                rest += begun
                if len(rest) > self._line_max_bytes:
                    yield number, self._too_long()
                    rest.clear()
                    skipping = True
        if rest.strip() and not self.client_left:
            yield number, bytes(rest)

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        while self._ahead is not None:
            message = await self._ahead
            if message["type"] == "http.disconnect":
                self.client_left = True
                return
            # After the last chunk the next message can only be that the client has left.
            self._ahead = asyncio.ensure_future(self._receive())
            yield message.get("body", b"")
            if not message.get("more_body", False):
                return

    def _has_left(self) -> bool:
        if self._ahead is not None and self._ahead.done() and self._ahead.result()["type"] == "http.disconnect":
            self.client_left = True
        return self.client_left

    def _too_long(self) -> Problem:
        return Problem(413, f"The line is larger than {self._line_max_bytes} bytes.")


class _Results:
    """Sends results while further ones are made. Up to WAITING_BYTES of them wait for a slow client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting = bytearray()
        self._sending: asyncio.Task[None] | None = None

    async def put(self, line: bytes) -> None:
        """Send a line soon. Raises TimeoutError for a client that takes nothing."""
        self._waiting += line
        if self._sending is not None and (self._sending.done() or len(self._waiting) > WAITING_BYTES):
            await self._sending
            self._sending = None
        if self._sending is None:
            self._start()

    async def end(self) -> None:
        """Send what waits, and the end of the answer. Raises TimeoutError."""
        if self._sending is not None:
            await self._sending
        await self._send_one({"type": "http.response.body", "body": bytes(self._waiting), "more_body": False})

    async def close(self) -> None:
        """Forget what was not sent."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    def _start(self) -> None:
        message = {"type": "http.response.body", "body": bytes(self._waiting), "more_body": True}
        self._waiting.clear()
        self._sending = asyncio.create_task(self._send_one(message))

    async def _send_one(self, message: Message) -> None:
        async with asyncio.timeout(STALL_SECONDS):
            await self._send(message)
