"""What operations have in common: documented answers, headers and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from api.bodies import JSON
from api.problems import MEDIA_TYPE

REF = "#/components/schemas/{model}"

_TEXTS = {
    400: "The body is not valid JSON, or the request asks for another version of the API.",
    401: "The access token or API key is missing, not valid, or expired.",
    403: "The caller may see the document, but not do this.",
    404: "There is no such document for this caller.",
    406: "The request accepts no form of the answer that there is.",
    408: "No more of the body has come for a minute.",
    405: "`bulk`, `distinct`, `import` and `reports` are no ids; their addresses have other methods.",
    409: "Another document has the same unique value, or the request does not fit what is there.",
    412: "The document has changed, or exists already (`If-Match`, `If-None-Match`).",
    413: "The body is too large.",
    415: "The body has another media type.",
    416: "The range lies beyond the content; `Content-Range` says how long that is.",
    422: "Values are not accepted; `errors` names the place of each fault.",
    429: "Too many requests; `Retry-After` says when to try again.",
    428: "The documents are changed only under `If-Match`.",
    503: "The database does not answer at the moment; `Retry-After` says when to try again.",
}
ETAG = {
    "description": "The entity tag of the document as this caller sees it.",
    "schema": {"type": "string"},
}
POSITION = {
    "description": "A position that the answer reflects at least; a WebSocket `ping` with it waits for the events.",
    "schema": {"type": "string"},
}
LAST_MODIFIED = {"description": "When the API last wrote the document.", "schema": {"type": "string"}}

#: What every answer says of the caller's rate limit, by the name of the header.
RATE_LIMIT = {
    "RateLimit-Limit": "How many requests the limit allows.",
    "RateLimit-Remaining": "How many of them are left.",
    "RateLimit-Reset": "In how many seconds there will be more.",
}
RETRY_AFTER = {"description": "In how many seconds to try again.", "schema": {"type": "integer"}}


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented problem answers of an operation."""
    return {
        status: {
            "description": _TEXTS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": REF.format(model="ProblemDetails")}}},
        }
        for status in sorted(statuses)
    }


def operation(
    name: str,
    summary: str,
    description: str,
    status: int,
    answer: type[BaseModel] | None,
    *errors: int,
    body: Mapping[str, type[BaseModel]] | None = None,
) -> dict[str, Any]:
    """What FastAPI is told of an operation that is not a class's: its answer, and its body by media type."""

    def content(models: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
        return {kind: {"schema": {"$ref": REF.format(model=model.__name__)}} for kind, model in models.items()}

    success: dict[str, Any] = {"description": summary}
    if answer is not None:
        success["content"] = content({JSON: answer})
    return {
        "operation_id": name,
        "tags": ["Accounts"],
        "summary": summary,
        "description": description,
        "status_code": status,
        "responses": {status: success, **error_answers(406, *errors)},
        "openapi_extra": {"requestBody": {"required": True, "content": content(body)}} if body else None,
        "response_model": None,
    }


def by_session(documented: dict[str, Any]) -> dict[str, Any]:
    """An operation that needs an access token: an API key is answered with 403."""
    refused = error_answers(403)
    refused[403]["description"] = "An API key is not good for this."
    extra = (documented.get("openapi_extra") or {}) | {"security": [{"bearer": []}, {"password": []}]}
    return documented | {"responses": refused | documented["responses"], "openapi_extra": extra}


def header_parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }


def query_parameter(name: str, description: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema,
        **more,
    }


IF_MATCH = header_parameter("If-Match", "Write only if the document still has one of these entity tags.")
IF_NONE_MATCH = header_parameter("If-None-Match", "Answer 304 if the document still has one of these entity tags.")
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": (
        "A word of the client's choice that makes it safe to send the request again: within 24 hours the same key and "
        "body get the first answer. For signed-in callers."
    ),
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "example": "4f6f2f0e-9c5b-4f0e-8a5d-0d0b1f0a7c3e",
}
