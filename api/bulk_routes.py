"""Many documents in one request: `POST /posts/bulk`, and PATCH and DELETE of all that match a filter."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import openapi
from api.bodies import JSON, PATCHES, Body, media_type, parse_body, read_json
from api.callers import CallerOf, challenge_unless_signed_in
from api.idempotency import Attempt, once
from api.negotiation import COMMON_HEADERS, JSON_ONLY
from api.problems import Problem, ProblemDetails, problem_content, problem_of
from api.queries import parse_selection, query_items
from api.rates import charge
from api.services import Caller, Services, ServicesOf
from documents import (
    Bulk,
    DocumentsError,
    Fault,
    Forbidden,
    Found,
    InvalidInput,
    Operation,
    OperationFailed,
    Outcome,
    Preconditions,
    ResourceClass,
    Selected,
    Selection,
    Verb,
    encode_json,
    parse_id,
    parse_tags,
)

MAX_OPERATIONS = 1_000
#: Past this, results name documents by their id only: a small request may touch large documents.
MAX_RESULT_BYTES = 16 * 1024 * 1024

Loc = tuple[str | int, ...]


class BulkOperation(Body):
    """One write. `create` takes a document, and an id if the client chooses it; `replace` an id and a document;
    `update` an id and a patch: an object is a merge patch, an array a JSON Patch, an object of `$` names update
    operators; `delete` takes an id."""

    op: Literal["create", "update", "replace", "delete"]
    # The defaults are never used: None would be in the schema, and null would be accepted.
    id: Annotated[str, Field(default_factory=str)]
    document: Annotated[dict[str, Any], Field(default_factory=dict)]
    patch: Annotated[dict[str, Any] | list[Any], Field(default_factory=dict)]
    if_match: Annotated[str, Field(default_factory=str, description="As the header `If-Match`; for all but `create`.")]


class BulkRequest(Body):
    """Operations, done in their order."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"operations": [{"op": "delete", "id": "6b02c1e9c1e9111478612819"}]}]}
    )

    operations: Annotated[list[BulkOperation], Field(min_length=1, max_length=MAX_OPERATIONS)]
    atomic: Annotated[bool, Field(description="All or nothing.")] = False


class BulkResult(BaseModel):
    """What became of one operation."""

    status: Annotated[int, Field(description="As the single request's: 200, 201, 204, or that of `error`.")]
    id: Annotated[str | None, Field(description="The document's id, where there is one.")] = None
    document: Annotated[dict[str, Any] | None, Field(description="The document as it is then.")] = None
    error: Annotated[ProblemDetails | None, Field(description="Why the operation was refused.")] = None


class BulkAnswer(BaseModel):
    """One result per operation, in order."""

    results: list[BulkResult]


class FailedDocument(BaseModel):
    """A document that matched and was not changed."""

    id: str
    error: ProblemDetails


class SelectionAnswer(BaseModel):
    """What became of all documents that match a filter."""

    matched: Annotated[int, Field(description="How many the caller may read and change, and match.")]
    modified: Annotated[int, Field(description="How many are not as they were.")]
    failed: Annotated[list[FailedDocument], Field(description="The first hundred of those that were refused.")]
    failed_total: Annotated[int, Field(description="How many were refused.")]


MODELS: list[type[BaseModel]] = [BulkRequest, BulkAnswer, SelectionAnswer]

#: What each operation must have, and may have beside it.
_MEMBERS: dict[str, tuple[set[str], set[str]]] = {
    "create": ({"document"}, {"id"}),
    "update": ({"id", "patch"}, {"if_match"}),
    "replace": ({"id", "document"}, {"if_match"}),
    "delete": ({"id"}, {"if_match"}),
}
_DONE = {Verb.CREATE: 201, Verb.UPDATE: 200, Verb.REPLACE: 200, Verb.DELETE: 204}


def add_bulk_routes(router: APIRouter, resource: ResourceClass, docs: openapi.BulkOperations) -> None:
    """Add the routes of `resource` that write many documents. They come before those with an id."""
    routes = _Routes(resource)
    json_only = [JSON_ONLY]
    router.add_api_route("/bulk", routes.bulk, methods=["POST"], dependencies=json_only, **docs.bulk())
    router.add_api_route("", routes.update, methods=["PATCH"], dependencies=json_only, **docs.update_selected())
    router.add_api_route("", routes.delete, methods=["DELETE"], dependencies=json_only, **docs.delete_selected())


class _Routes:
    """The handlers of one class."""

    def __init__(self, resource: ResourceClass) -> None:
        self._resource = resource

    async def bulk(self, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        content = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)
        asked = parse_body(BulkRequest, content)
        operations = _operations(asked)

        async def run(attempt: Attempt) -> Response:
            await charge(request, len(operations))
            outcomes = await self._outcomes(services, caller, operations, atomic=asked.atomic)
            ids = {made.document["id"] for made in outcomes if isinstance(made, Found)}
            # What was deleted in the end is shown by its author's own request, and there is nothing left to ask.
            for id in ids - {operation.id_text for operation in operations if operation.verb is Verb.DELETE}:
                attempt.shows(self._resource.name, parse_id(self._resource, id))
            return _Results(request, services, caller).answer(operations, outcomes)

        return await once(request, caller, services, content, run)

    async def _outcomes(
        self, services: Services, caller: Caller, operations: list[Operation], *, atomic: bool
    ) -> list[Outcome]:
        bulk, principal = Bulk(services.store), caller.principal
        if not atomic:
            return [outcome async for outcome in bulk.each(self._resource, principal, operations)]
        try:
            return await bulk.atomic(self._resource, principal, operations)
        except OperationFailed as failed:
            raise _of_atomic(failed, operations[failed.index], caller) from None

    async def update(self, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        content = await read_json(request, tuple(PATCHES), max_bytes=services.settings.max_body_bytes)
        principal = caller.principal
        filter = parse_selection(self._resource, principal, query_items(request.scope["query_string"]))
        patch = services.store.prepare(self._resource, principal, PATCHES[media_type(request)], content)
        try:
            selected = await _selection(request, services).update(self._resource, principal, filter, patch)
        except Forbidden:
            challenge_unless_signed_in(caller)
            raise
        return _of_selected(request, services, selected)

    async def delete(self, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        filter = parse_selection(self._resource, caller.principal, query_items(request.scope["query_string"]))
        try:
            selected = await _selection(request, services).delete(self._resource, caller.principal, filter)
        except Forbidden:
            challenge_unless_signed_in(caller)
            raise
        return _of_selected(request, services, selected)


def _selection(request: Request, services: Services) -> Selection:
    for name in ("If-Match", "If-None-Match"):
        if name in request.headers:
            raise InvalidInput.at("header", name, msg="a condition is about one document", type="unexpected")

    async def found(count: int) -> None:
        await charge(request, count)

    return Selection(services.store, found)


def _operations(asked: BulkRequest) -> list[Operation]:
    """The operations, each with exactly the members that it takes. Raises InvalidInput with all faults."""
    faults: list[Fault] = []
    operations: list[Operation] = []
    for index, entry in enumerate(asked.operations):
        loc: Loc = ("body", "operations", index)
        required, optional = _MEMBERS[entry.op]
        given = entry.model_fields_set - {"op"}
        faults += [Fault((*loc, name), "the member is required", "missing") for name in sorted(required - given)]
        extra = sorted(given - required - optional)
        faults += [Fault((*loc, name), f"`{entry.op}` does not take it", "extra_forbidden") for name in extra]
        tags = None
        if "if_match" in given:
            try:
                tags = parse_tags(entry.if_match, "If-Match")
            except InvalidInput as error:
                faults += [Fault((*loc, "if_match"), fault.msg, fault.type) for fault in error.faults]
        document = entry.patch if entry.op == "update" else entry.document
        id_text = entry.id if "id" in given else None
        operations.append(Operation(Verb(entry.op), id_text, document, Preconditions(if_match=tags)))
    if faults:
        raise InvalidInput(faults)
    return operations


def _problem(error: DocumentsError, index: int, operation: Operation, caller: Caller) -> Problem:
    """What the single request would be answered, with places in this one."""
    problem = problem_of(error)
    if isinstance(error, Forbidden) and not caller.principal.signed_in:
        problem = Problem(401, "Sign in first.")
    problem.errors = tuple(
        Fault(_placed(fault.loc, index, operation), fault.msg, fault.type) for fault in problem.errors
    )
    return problem


def _placed(loc: Loc, index: int, operation: Operation) -> Loc:
    if loc[:1] == ("body",):
        member = "patch" if operation.verb is Verb.UPDATE else "document"
        return ("body", "operations", index, member, *loc[1:])
    return ("body", "operations", index, *loc[1:])


def _of_atomic(failed: OperationFailed, operation: Operation, caller: Caller) -> Problem:
    """422 for faults in the request, else 409: what the operation met is the cause, and not this address."""
    if isinstance(failed.error, Forbidden):
        challenge_unless_signed_in(caller)
    problem = _problem(failed.error, failed.index, operation, caller)
    detail = f"Operation {failed.index} failed, so nothing was changed: {problem.detail}"
    if problem.status in (409, 422):
        return Problem(problem.status, detail, code=problem.code, errors=problem.errors)
    cause = Fault(("body", "operations", failed.index), problem.detail, problem.code)
    return Problem(409, detail, errors=[cause])


def _of_selected(request: Request, services: Services, selected: Selected) -> Response:
    content = {
        "matched": selected.matched,
        "modified": selected.modified,
        "failed": [{"id": id, "error": _content(request, problem_of(error))} for id, error in selected.failed],
        "failed_total": selected.failures,
    }
    headers = {**COMMON_HEADERS, "X-Position": services.positions.encode(selected.position)}
    return Response(encode_json(content), media_type=JSON, headers=headers)


def _content(request: Request, problem: Problem) -> dict[str, Any]:
    return problem_content(problem, path=request.scope["path"], request_id=request.state.request_id)


class _Results:
    """Writes the answer to a bulk request."""

    def __init__(self, request: Request, services: Services, caller: Caller) -> None:
        self._request = request
        self._services = services
        self._caller = caller
        self._bytes = 0

    def answer(self, operations: list[Operation], outcomes: list[Outcome]) -> Response:
        """200 when all was done, else 207."""
        failed = any(isinstance(outcome, DocumentsError) for outcome in outcomes)
        positions = [made.position if isinstance(made, Found) else made for made in outcomes]
        reached = [position for position in positions if not isinstance(position, DocumentsError)]
        headers = dict(COMMON_HEADERS)
        if reached:
            headers["X-Position"] = self._services.positions.encode(max(reached))
        results = [
            self._result(index, operation, outcome)
            for index, (operation, outcome) in enumerate(zip(operations, outcomes, strict=True))
        ]
        content = b'{"results":[' + b",".join(results) + b"]}"
        return Response(content, status_code=207 if failed else 200, media_type=JSON, headers=headers)

    def _result(self, index: int, operation: Operation, outcome: Outcome) -> bytes:
        result: dict[str, Any] = {"status": _DONE[operation.verb], "id": operation.id_text}
        if isinstance(outcome, DocumentsError):
            problem = _problem(outcome, index, operation, self._caller)
            result |= {"status": problem.status, "error": _content(self._request, problem)}
        elif isinstance(outcome, Found):
            result["id"] = outcome.document["id"]
            document = encode_json(outcome.document)
            self._bytes += len(document)
            if self._bytes <= MAX_RESULT_BYTES:
                return encode_json(result)[:-1] + b',"document":' + document + b"}"
        if result["id"] is None:
            del result["id"]
        return encode_json(result)
