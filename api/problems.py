"""Problem details (RFC 9457): the one shape of every error answer."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from api.methods import described_methods
from api.passwords import Busy
from documents import (
    ConditionMissing,
    Contended,
    DatabaseAway,
    DocumentsError,
    Duplicate,
    Fault,
    Forbidden,
    Inapplicable,
    InvalidInput,
    KeyHeld,
    LastAdmin,
    NotFound,
    OutOfTime,
    RefreshRefused,
    ResetRefused,
    Stale,
    TooMany,
    TooManyMatch,
    encode_json,
)

logger = logging.getLogger("headwater.api")

MEDIA_TYPE = "application/problem+json"

#: Code of a problem by its HTTP status. A client branches on `code`; `title` and `detail` are for people.
CODES: dict[int, str] = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "request_timeout",
    409: "conflict",
    412: "precondition_failed",
    413: "content_too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    422: "invalid",
    428: "precondition_required",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
}
RETRY_AFTER_SECONDS = 2
#: How many faults an answer names, and how much of a name that a client has made up.
MAX_ERRORS, MAX_NAME = 100, 200
#: As RFC 9110 has them. Python's own phrases for these differ from version to version.
_TITLES = {413: "Content Too Large", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}


class ProblemError(BaseModel):
    """One fault in a request."""

    loc: list[str | int] = Field(description="The path to the fault, such as `body`, `title`.")
    msg: str
    type: str


class ProblemDetails(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(description="A URI that names the kind of problem.", examples=["about:blank"])
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    instance: str = Field(description="The path of the request.")
    code: str = Field(description="A stable word for programs.")
    request_id: str
    errors: list[ProblemError] | None = Field(None, description="The faults, for 422 and some others.")


class Problem(Exception):
    """Raise this to answer with a problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or CODES.get(status, "error")
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


def problem_content(problem: Problem, *, path: str, request_id: str) -> dict[str, Any]:
    """The JSON object that a problem is (RFC 9457, 3)."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(problem.status) or HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": path,
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.errors:
        content["errors"] = [
            {"loc": [_short(part) for part in f.loc], "msg": f.msg, "type": f.type} for f in problem.errors[:MAX_ERRORS]
        ]
    return content


def _short(part: str | int) -> str | int:
    # A name in a client's document may be as long as the document.
    return part if isinstance(part, int) or len(part) <= MAX_NAME else part[:MAX_NAME] + "…"


def problem_response(problem: Problem, *, path: str, request_id: str) -> Response:
    """The HTTP answer of a problem."""
    content = problem_content(problem, path=path, request_id=request_id)
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(encode_json(content), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)


def problem_answer(problem: Problem, scope: Scope) -> ASGIApp:
    """The answer of a middleware, to an HTTP request or to a WebSocket's handshake."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        return _refuse_handshake
    return problem_response(problem, path=scope["path"], request_id=str(scope.get("state", {}).get("request_id", "")))


async def _refuse_handshake(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - an ASGI application
    """What a server makes of this, when it cannot send an answer of ours, is 403."""
    await send({"type": "websocket.close"})


def problem_of(error: Exception) -> Problem:
    """The problem that an exception of the lower folders is for the client."""
    match error:
        case Problem():
            return error
        case InvalidInput():
            return Problem(422, "The request contains values that are not accepted.", errors=error.faults)
        case NotFound():
            return Problem(404, "There is no such document.")
        case Forbidden():
            return Problem(403, f"{str(error)[:1].upper()}{str(error)[1:]}.")
        case RefreshRefused():
            detail = "The refresh token is not valid, or its session has ended."
            return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})
        case ResetRefused():
            fault = Fault(("body", "token"), str(error), "reset_token")
            return Problem(422, "The request contains values that are not accepted.", errors=[fault])
        case LastAdmin():
            return Problem(409, f"{str(error)[:1].upper()}{str(error)[1:]}.")
        case TooMany():
            return Problem(409, f"{str(error)[:1].upper()}{str(error)[1:]}.")
        case TooManyMatch():
            return Problem(409, f"{str(error)[:1].upper()}{str(error)[1:]}.")
        case Inapplicable():
            return Problem(409, "The patch does not fit the document as it is.", errors=error.faults)
        case ConditionMissing():
            return Problem(428, f"{str(error)[:1].upper()}{str(error)[1:]}.")
        case Stale():
            return Problem(412, f"{str(error)[:1].upper()}{str(error)[1:]}.")
        case Duplicate():
            faults = [Fault(("body", name), "another document has this value", "duplicate") for name in error.fields]
            return Problem(409, f"{str(error)[:1].upper()}{str(error)[1:]}.", code="duplicate", errors=faults)
        case KeyHeld():
            detail = f"{str(error)[:1].upper()}{str(error)[1:]}."
            if error.left is None:
                return Problem(409, detail, code="interrupted")
            # Most requests are done in a moment; `left` is how long a dead one stands in the way.
            headers = {"Retry-After": str(min(RETRY_AFTER_SECONDS, math.ceil(error.left.total_seconds())))}
            return Problem(409, detail, code="in_progress", headers=headers)
        case Contended():
            return _away("The document is being changed by many writers at once; try again.")
        case OutOfTime():
            return _away(f"{str(error)[:1].upper()}{str(error)[1:]}; send it again.")
        case DatabaseAway():
            return _away("The database does not answer at the moment; try again.")
        case Busy():
            return Problem(503, "Too many people are signing in at once; try again.", headers={"Retry-After": "1"})
        case HTTPException():
            return _http_problem(error)
        case RequestValidationError():
            faults = [Fault(tuple(e["loc"]), e["msg"], e["type"]) for e in error.errors()]
            return Problem(422, "The request contains values that are not accepted.", errors=faults)
        case _:
            return Problem(500, "Something went wrong on the server. The request id helps to find it in the log.")


def _away(detail: str) -> Problem:
    return Problem(503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def _http_problem(error: HTTPException) -> Problem:
    details = {404: "There is nothing at this address.", 405: "This address does not have this method."}
    return Problem(
        error.status_code,
        details.get(error.status_code, str(error.detail)),
        headers=dict(error.headers or {}),
    )


def install_problems(app: FastAPI) -> None:
    """Answer every exception with a problem."""

    async def answer(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        request_id = getattr(request.state, "request_id", "")
        path = request.scope["path"]
        if problem.status == 405:
            described = described_methods(request.app.routes, request.scope)
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=described)
            problem.headers["Allow"] = described["Allow"]
        elif problem.status >= 500:
            # Known causes need no stack trace; unknown ones do.
            cause = None if isinstance(error, Problem | DatabaseAway | Contended | Busy) else error
            level = logging.WARNING if cause is None else logging.ERROR
            logger.log(level, "%s %s failed: %s", request.method, path, type(error).__name__, exc_info=cause)
        return problem_response(problem, path=path, request_id=request_id)

    # Errors of no known kind are not for a handler here: `middleware.Envelope` is around the whole application.
    for kind in (Problem, Busy, DocumentsError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)
