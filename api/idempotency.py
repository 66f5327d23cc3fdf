"""`Idempotency-Key` on POST (draft-ietf-httpapi-idempotency-key-header-06): what is sent again is not done again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from api.callers import challenge_unless_signed_in
from api.problems import Problem, problem_of
from api.services import Caller, Services
from documents import (
    Claim,
    DocumentsError,
    Duplicate,
    Forbidden,
    Found,
    InvalidInput,
    KeptAnswer,
    NotFound,
    Principal,
    ResourceClass,
)

logger = logging.getLogger("headwater.api")

KEY = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEY_PATTERN = "[!-~]{1,255}"

_KEY = re.compile(KEY_PATTERN)
#: The headers that describe the answer's content. All others belong to one request.
_KEPT = ("Content-Type", "Location", "ETag", "Last-Modified", "X-Position", "Cache-Control", "Vary")


class Attempt:
    """One attempt at a request, with a key or without."""

    def __init__(self, claim: Claim | None) -> None:
        self._claim = claim
        self._shows: list[tuple[str, Any]] = []

    @property
    def document_id(self) -> Any:
        """The id under which to create the document; None without a key."""
        return self._claim and self._claim.document_id

    @property
    def is_repeated(self) -> bool:
        """Whether an earlier attempt may have created the document already."""
        return self._claim is not None and self._claim.attempt > 1

    def shows(self, collection: str, document_id: Any) -> None:
        """Say that the answer shows a document, so that it is not given again to a caller who may not read it."""
        self._shows.append((collection, document_id))

    @property
    def shown(self) -> list[tuple[str, Any]]:
        """What the answer shows."""
        return self._shows


async def once(
    request: Request,
    caller: Caller,
    services: Services,
    content: Any,
    run: Callable[[Attempt], Awaitable[Response]],
    *,
    allot: Callable[[], Any] | None = None,
    again: Callable[[Any], Awaitable[Response]] | None = None,
) -> Response:
    """Answer a POST by `run`, or, when its key was used before, with the answer that was given then.

    `content` is the decoded body. A request that creates one document passes `allot`, which makes its id before
    anything is done, and `again`, which answers anew from the document of that id as the caller may read it now (or
    raises NotFound). Such a request is attempted again after an interruption; others are not, and their answer is given
    again only while the caller may read all that it `shows`.

    An attempt that ends with 4xx has changed nothing and leaves no trace. One that ends with 5xx may have written: it
    may be repeated at once where that is safe. A cancellation leaves the claim to run out (`documents.idempotency`).
    """
    key = key_of(request)
    if key is None:
        return await run(Attempt(None))
    challenge_unless_signed_in(caller)
    claims = services.claims
    held = await claims.claim(
        claim_id(request, caller, key),
        _fingerprint(request, content),
        allot() if allot is not None else None,
        repeatable=again is not None,
    )
    if isinstance(held, KeptAnswer):
        return await _given_again(held, caller.principal, services, again)
    attempt = Attempt(held)
    try:
        response = await run(attempt)
    except Exception as error:
        # Of an upload that breaks off nothing is kept.
        refused = isinstance(error, ClientDisconnect) or problem_of(error).status < 500
        # If this fails too, the claim runs out by itself.
        with contextlib.suppress(DocumentsError):
            if refused or again is not None:
                await claims.release(held, forget=refused)
        raise
    try:
        await claims.finish(held, _kept(response, attempt, caller.principal))
    except DocumentsError as error:
        logger.warning("%s %s: the answer could not be kept: %s", request.method, request.scope["path"], error)
    return response


async def create_once(
    resource: ResourceClass,
    caller: Caller,
    services: Services,
    body: Any,
    document_id: Any = None,
    *,
    repeated: bool = False,
) -> Found:
    """Create a document under `document_id`, or find the one that an earlier attempt has created under it.

    `repeated` says that there may have been one. Without a `document_id`, create one under a new id.
    """
    store, principal = services.store, caller.principal
    if repeated:
        with contextlib.suppress(NotFound):
            return await store.get(resource, str(document_id), principal)
    try:
        return await store.create(resource, principal, body, document_id=document_id)
    except Forbidden:
        challenge_unless_signed_in(caller)
        raise
    except Duplicate as duplicate:
        # The earlier document has all unique values of this one, so the fields that are named prove nothing.
        if document_id is None:
            raise
        try:
            return await store.get(resource, str(document_id), principal)
        except NotFound:
            if "id" in duplicate.fields:
                raise gone() from None
            raise duplicate from None


def key_of(request: Request) -> str | None:
    """The request's key, or None. Raises InvalidInput for what is not 1 to 255 visible ASCII characters."""
    values = request.headers.getlist(KEY)
    if not values:
        return None
    if len(values) > 1 or not _KEY.fullmatch(values[0]):
        msg = "one key of 1 to 255 visible ASCII characters is expected"
        raise InvalidInput.at("header", KEY, msg=msg, type="idempotency_key")
    return values[0]


def claim_id(request: Request, caller: Caller, key: str) -> str:
    """The name of a claim. A hash: keys are the clients' own, and some hold what is nobody's concern."""
    credential = caller.credential
    by_key = credential.id if credential is not None and credential.is_key else None
    parts = [str(caller.principal.user_id), str(by_key), request.method, request.scope["path"], key]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def gone() -> Problem:
    """The answer where the first one cannot be given again."""
    detail = "The request was carried out, but its answer cannot be given again."
    return Problem(409, detail, code="answer_gone")


def _fingerprint(request: Request, content: Any) -> str:
    # Decoded and in one order: a client may write the same object in another way when it repeats the request.
    text = json.dumps([request.scope["query_string"].decode("latin-1"), content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _rights(principal: Principal) -> str:
    """What decides which fields the caller sees."""
    scopes = "*" if principal.scopes is None else " ".join(sorted(principal.scopes))
    return f"{' '.join(sorted(principal.roles))} | {scopes}"


def _kept(response: Response, attempt: Attempt, principal: Principal) -> KeptAnswer:
    headers = {name: response.headers[name] for name in _KEPT if name in response.headers}
    # What nobody on the way may store is not for a database either.
    body = None if "no-store" in headers.get("Cache-Control", "") else bytes(response.body)
    return KeptAnswer(response.status_code, headers, body, _rights(principal), shows=attempt.shown)


def _still_good(headers: Mapping[str, str], services: Services) -> dict[str, str]:
    """Without a position from before the secret was changed: nothing could be read from there, or caught up to."""
    kept = dict(headers)
    with contextlib.suppress(KeyError):
        try:
            services.positions.decode(kept["X-Position"])
        except InvalidInput:
            del kept["X-Position"]
    return kept


async def _given_again(
    kept: KeptAnswer,
    principal: Principal,
    services: Services,
    again: Callable[[Any], Awaitable[Response]] | None,
) -> Response:
    if again is not None:
        try:
            response = await again(kept.document_id)
        except NotFound:
            raise gone() from None
    elif await services.claims.readable(kept.shows, principal):
        response = None
    else:
        raise gone()
    if kept.body is not None and kept.rights == _rights(principal):
        response = Response(kept.body, status_code=kept.status, headers=_still_good(kept.headers, services))
    elif response is None:
        raise gone()
    response.headers[REPLAYED] = "true"
    return response
