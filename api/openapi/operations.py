"""The operations that every document class gets, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel

from api.bodies import JSON, JSON_PATCH, MERGE_PATCH, OPERATORS
from api.negotiation import CSV, EVENTS, NDJSON
from api.openapi.answers import (
    ETAG,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    LAST_MODIFIED,
    POSITION,
    REF,
    error_answers,
    header_parameter,
    query_parameter,
)
from api.openapi.models import JsonPatchBody, UpdateOperators, page_model
from api.settings import Settings
from documents import Action, Forms, ResourceClass, encode_json, references_of

_EVENT = 'event: delete\ndata: {"type":"event","op":"delete","id":"6b02c1e9c1e9111478612819"}\n\n'


class Operations:
    """What FastAPI is told of each operation of one class."""

    def __init__(self, resource: ResourceClass, forms: Forms, settings: Settings) -> None:
        self._resource = resource
        self._forms = forms
        self._settings = settings
        self._name = resource.name
        self._label = resource.label
        self._page = page_model(resource, forms)

    def _operation(
        self,
        verb: str,
        summary: str,
        description: str,
        answers: dict[int | str, dict[str, Any]],
        **extra: Any,
    ) -> dict[str, Any]:
        return {
            "operation_id": f"{verb}_{self._name}",
            "summary": summary,
            "description": description,
            "responses": answers,
            "openapi_extra": extra or None,
            "response_model": None,
        }

    def _one(self, description: str) -> dict[str, Any]:
        return {
            "description": description,
            "content": {JSON: {"schema": {"$ref": REF.format(model=self._forms.public.__name__)}}},
            "headers": {"ETag": ETAG, "X-Position": POSITION, "Last-Modified": LAST_MODIFIED},
        }

    def _created(self) -> dict[str, Any]:
        answer = self._one("The new document.")
        answer["headers"] = answer["headers"] | {
            "Location": {"description": "Its address.", "schema": {"type": "string"}}
        }
        return answer

    def _body(self, form: type[BaseModel], *media_types: str) -> dict[str, Any]:
        schema = {"$ref": REF.format(model=form.__name__)}
        return {"required": True, "content": {media_type: {"schema": schema} for media_type in media_types}}

    def list_page(self) -> dict[str, Any]:
        """`GET /{name}`."""
        answers: dict[int | str, dict[str, Any]] = {
            200: {
                "description": "A page of documents; by `Accept`, the live result, or the whole one as a file.",
                "content": {
                    JSON: {"schema": {"$ref": REF.format(model=self._page.__name__)}},
                    NDJSON: {"schema": {"type": "string"}, "example": '{"id":"6b02c1e9c1e9111478612819"}\n'},
                    CSV: {"schema": {"type": "string"}, "example": "id\r\n6b02c1e9c1e9111478612819\r\n"},
                    EVENTS: {"schema": {"type": "string"}, "example": _EVENT},
                },
                "headers": {
                    "X-Position": POSITION,
                    "Content-Disposition": {
                        "description": "The file's name, of exports.",
                        "schema": {"type": "string"},
                    },
                    "Link": {"description": 'The next page, `rel="next"`.', "schema": {"type": "string"}},
                    "X-Total-Count": {
                        "description": "The total, when counted.",
                        "schema": {"type": "integer"},
                    },
                },
            },
            **error_answers(401, 406, 422, 503),
        }
        return self._operation(
            "list",
            f"List {self._name}",
            "Documents that the caller may read and that match the filter. Besides `filter`, each field may be given "
            "in a short form: `?status=published&created_at[gte]=2026-01-01T00:00:00Z&tags[in]=a,b`. With `Accept: "
            "application/x-ndjson` or `text/csv` all matching documents are streamed, without pages: `limit` then "
            "bounds the whole, and `cursor`, `page`, `page_size` and `count` are refused.",
            answers,
            parameters=self._list_parameters(),
        )

    def _list_parameters(self) -> list[dict[str, Any]]:
        most = self._settings.page_size_max
        size = {"type": "integer", "minimum": 1, "maximum": most}
        whole = {"type": "integer", "minimum": 1, "maximum": 1_000_000}
        return [
            query_parameter("filter", "A filter in MongoDB's form, as JSON.", {"type": "string"}, example="{}"),
            query_parameter(
                "search", "Words that all must occur in the class's searchable fields.", {"type": "string"}
            ),
            query_parameter(
                "sort",
                "Fields, comma-separated; `-` before a name sorts downwards.",
                {"type": "string"},
                example="-created_at",
            ),
            query_parameter("fields", "The fields to return, comma-separated.", {"type": "string"}, example="id"),
            *self._expand(),
            query_parameter("limit", "The page's size, with `cursor`.", size | {"default": min(25, most)}),
            query_parameter("cursor", "`next_cursor` of the page before.", {"type": "string"}),
            query_parameter("page", "The page's number, counted from 1; instead of `cursor`.", whole),
            query_parameter("page_size", "The page's size, with `page`.", size),
            query_parameter(
                "count",
                "Whether to count all matching documents. `exact` by default with `page`, else `none`.",
                {"type": "string", "enum": ["none", "estimated", "exact"]},
            ),
        ]

    def _expand(self) -> list[dict[str, Any]]:
        references = list(references_of(self._resource))
        if not references:
            return []
        description = (
            f"References to embed under `expanded`, comma-separated: {', '.join(references)}; one level below with a "
            "dot. Each through the read rule of its own class; what cannot be read is null."
        )
        return [query_parameter("expand", description, {"type": "string"}, example=references[0])]

    def create(self) -> dict[str, Any]:
        """`POST /{name}`."""
        answers = {201: self._created(), **error_answers(400, 401, 403, 406, 409, 413, 415, 422, 503)}
        return self._operation(
            "create",
            f"Create one of {self._name}",
            "The server sets the id and the fields that the form does not have. With `Idempotency-Key` it is safe to "
            "send the request again.",
            answers,
            parameters=[IDEMPOTENCY_KEY],
            requestBody=self._body(self._forms.create, JSON),
        ) | {"status_code": 201}

    def import_lines(self) -> dict[str, Any]:
        """`POST /{name}/import`."""
        lines = [encode_json(example).decode() for example in self._resource.declared.examples[:1]] or ["{}"]
        result = '{"line":1,"status":201,"id":"6b02c1e9c1e9111478612819"}\n'
        answers: dict[int | str, dict[str, Any]] = {
            200: {
                "description": (
                    "A line for each line of the body that is not blank, in order: its number, counted from 1, and "
                    "`status` 201 with the document's `id`, or another status with the problem as `error` (after a "
                    "MiB of those only its `code`). The import "
                    "ends early, with a last line that says why, at 401, 5xx, and when the whole is too large."
                ),
                "content": {NDJSON: {"schema": {"type": "string"}, "example": result}},
            },
            **error_answers(401, 403, 406, 413, 415, 422, 503),
        }
        body = {NDJSON: {"schema": {"type": "string"}, "example": "".join(f"{line}\n" for line in lines)}}
        return self._operation(
            "import",
            f"Create many of {self._name}",
            "Creates a document for each line of the body, by the same rules as one alone. A line that is refused does "
            "not stop the others. Read the results while you send: what waits for you is bounded. With "
            "`Idempotency-Key` an import that was broken off may be sent again; lines at the same place with the same "
            "content create nothing twice.",
            answers,
            parameters=[IDEMPOTENCY_KEY],
            requestBody={"required": True, "content": body},
            # FastAPI would add an answer in JSON.
        ) | {"response_class": Response}

    def get(self) -> dict[str, Any]:
        """`GET /{name}/{id}`."""
        answers = {
            200: self._one("The document."),
            304: {"description": "The caller has the document already.", "headers": {"ETag": ETAG}},
            **error_answers(401, 404, 405, 406, 422, 503),
        }
        return self._operation(
            "get",
            f"Get one of {self._name}",
            "Fields that are not stored are absent. With `expand` the answer has no entity tag.",
            answers,
            parameters=[*self._expand(), IF_NONE_MATCH],
        )

    def replace(self) -> dict[str, Any]:
        """`PUT /{name}/{id}`."""
        answers = {
            200: self._one("The document as it is now."),
            201: self._created(),
            **self._changing_errors(400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 503),
        }
        put_header = header_parameter("If-None-Match", "`*` creates the document under the given id.")
        return self._operation(
            "replace",
            f"Replace one of {self._name}",
            "Sets all fields that the caller may set; those that the body lacks get their defaults.",
            answers,
            parameters=[IF_MATCH, put_header],
            requestBody=self._body(self._forms.create, JSON),
        )

    def patch(self) -> dict[str, Any]:
        """`PATCH /{name}/{id}`."""
        answers = {
            200: self._one("The document as it is now."),
            **self._changing_errors(400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 503),
        }
        return self._operation(
            "patch",
            f"Change one of {self._name}",
            "JSON Merge Patch (RFC 7396): fields that the patch names are set, null removes a field. JSON Patch (RFC "
            "6902), or MongoDB's update operators: both act on the document as this caller sees it. The resulting "
            "document is validated as a whole. No concurrent write is lost.",
            answers,
            parameters=[IF_MATCH],
            requestBody=self.patch_body(),
        )

    def _changing_errors(self, *statuses: int) -> dict[int | str, dict[str, Any]]:
        """The errors of a change, 428 among them where the class's documents are changed under a condition."""
        return error_answers(*statuses, *([428] if self._resource.declared.conditional else []))

    def patch_body(self) -> dict[str, Any]:
        """The body of a patch, by media type."""
        body = self._body(self._forms.update, MERGE_PATCH, JSON)
        name, value = next(
            ((name, value) for example in self._resource.declared.examples for name, value in example.items()),
            ("name", None),
        )
        body["content"] |= {
            JSON_PATCH: {
                "schema": {"$ref": REF.format(model=JsonPatchBody.__name__)},
                "example": [
                    {"op": "test", "path": "/revision", "value": 7},
                    {"op": "replace", "path": f"/{name}", "value": value},
                ],
            },
            OPERATORS: {
                "schema": {"$ref": REF.format(model=UpdateOperators.__name__)},
                "example": {"$set": {name: value}},
            },
        }
        return body

    def action(self, action: Action) -> dict[str, Any]:
        """`POST /{name}/{id}/{action}`."""
        answers = {
            200: self._one("The document as it is now."),
            **self._changing_errors(400, 401, 403, 404, 409, 412, 413, 415, 422, 503),
        }
        return self._operation(
            action.name,
            f"{action.name.replace('_', ' ').capitalize()} one of {self._name}",
            action.description,
            answers,
            parameters=[IF_MATCH, IDEMPOTENCY_KEY],
            requestBody=self._body(action.form, JSON),
        )

    def patch_with(self, form: type[BaseModel], description: str) -> dict[str, Any]:
        """`PATCH /{name}/{id}` with a form of its own, where the class's fields have other ways to change."""
        documented = self.patch()
        documented["openapi_extra"]["requestBody"] = self._body(form, MERGE_PATCH, JSON)
        return documented | {"description": description}

    def delete(self) -> dict[str, Any]:
        """`DELETE /{name}/{id}`."""
        answers = {
            204: {"description": "The document is deleted.", "headers": {"X-Position": POSITION}},
            **self._changing_errors(401, 403, 404, 405, 412, 422, 503),
        }
        return self._operation(
            "delete",
            f"Delete one of {self._name}",
            "It is gone for everybody. Live views that showed it get a `delete` event.",
            answers,
            parameters=[IF_MATCH],
        ) | {"status_code": 204}
