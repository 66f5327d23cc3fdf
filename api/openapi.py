"""The OpenAPI 3.1 document: real schemas per class, parameters, headers, errors and examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import models_json_schema

from api.bodies import JSON, MERGE_PATCH
from api.problems import MEDIA_TYPE, ProblemDetails
from api.settings import Settings
from documents import Forms, ResourceClass

_REF = "#/components/schemas/{model}"

_TEXTS = {
    400: "The body is not valid JSON.",
    401: "The access token is missing, not valid, or expired.",
    403: "The caller may see the document, but not do this.",
    404: "There is no such document for this caller.",
    409: "Another document has the same unique value.",
    412: "The document has changed, or exists already (`If-Match`, `If-None-Match`).",
    413: "The body is too large.",
    415: "The body has another media type.",
    422: "Values are not accepted; `errors` names the place of each fault.",
    503: "The database does not answer at the moment; `Retry-After` says when to try again.",
}
_ETAG = {
    "description": "The entity tag of the document as this caller sees it.",
    "schema": {"type": "string"},
}
_POSITION = {
    "description": "A position that the answer reflects at least; a WebSocket `ping` with it waits for the events.",
    "schema": {"type": "string"},
}
_LAST_MODIFIED = {"description": "When the API last wrote the document.", "schema": {"type": "string"}}


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented problem answers of an operation."""
    return {
        status: {
            "description": _TEXTS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="ProblemDetails")}}},
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
        return {kind: {"schema": {"$ref": _REF.format(model=model.__name__)}} for kind, model in models.items()}

    success: dict[str, Any] = {"description": summary}
    if answer is not None:
        success["content"] = content({JSON: answer})
    return {
        "operation_id": name,
        "tags": ["Accounts"],
        "summary": summary,
        "description": description,
        "status_code": status,
        "responses": {status: success, **error_answers(*errors)},
        "openapi_extra": {"requestBody": {"required": True, "content": content(body)}} if body else None,
        "response_model": None,
    }


def _header(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }


def _query(name: str, description: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema,
        **more,
    }


_IF_MATCH = _header("If-Match", "Write only if the document still has one of these entity tags.")
_IF_NONE_MATCH = _header("If-None-Match", "Answer 304 if the document still has one of these entity tags.")


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
            "content": {JSON: {"schema": {"$ref": _REF.format(model=self._forms.public.__name__)}}},
            "headers": {"ETag": _ETAG, "X-Position": _POSITION, "Last-Modified": _LAST_MODIFIED},
        }

    def _created(self) -> dict[str, Any]:
        answer = self._one("The new document.")
        answer["headers"] = answer["headers"] | {
            "Location": {"description": "Its address.", "schema": {"type": "string"}}
        }
        return answer

    def _body(self, form: type[BaseModel], *media_types: str) -> dict[str, Any]:
        schema = {"$ref": _REF.format(model=form.__name__)}
        return {"required": True, "content": {media_type: {"schema": schema} for media_type in media_types}}

    def list_page(self) -> dict[str, Any]:
        """`GET /{name}`."""
        answers: dict[int | str, dict[str, Any]] = {
            200: {
                "description": "A page of documents; with `Accept: text/event-stream`, the live result.",
                "content": {
                    JSON: {"schema": {"$ref": _REF.format(model=self._page.__name__)}},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
                "headers": {
                    "X-Position": _POSITION,
                    "Link": {"description": 'The next page, `rel="next"`.', "schema": {"type": "string"}},
                    "X-Total-Count": {
                        "description": "The total, when counted.",
                        "schema": {"type": "integer"},
                    },
                },
            },
            **error_answers(401, 422, 503),
        }
        return self._operation(
            "list",
            f"List {self._name}",
            "Documents that the caller may read and that match the filter. Besides `filter`, each field may be given "
            "in a short form: `?status=published&created_at[gte]=2026-01-01T00:00:00Z&tags[in]=a,b`.",
            answers,
            parameters=self._list_parameters(),
        )

    def _list_parameters(self) -> list[dict[str, Any]]:
        most = self._settings.page_size_max
        size = {"type": "integer", "minimum": 1, "maximum": most}
        whole = {"type": "integer", "minimum": 1, "maximum": 1_000_000}
        return [
            _query("filter", "A filter in MongoDB's form, as JSON.", {"type": "string"}, example="{}"),
            _query("search", "Words that all must occur in the class's searchable fields.", {"type": "string"}),
            _query(
                "sort",
                "Fields, comma-separated; `-` before a name sorts downwards.",
                {"type": "string"},
                example="-created_at",
            ),
            _query("fields", "The fields to return, comma-separated.", {"type": "string"}, example="id"),
            _query("limit", "The page's size, with `cursor`.", size | {"default": min(25, most)}),
            _query("cursor", "`next_cursor` of the page before.", {"type": "string"}),
            _query("page", "The page's number, counted from 1; instead of `cursor`.", whole),
            _query("page_size", "The page's size, with `page`.", size),
            _query(
                "count",
                "Whether to count all matching documents. `exact` by default with `page`, else `none`.",
                {"type": "string", "enum": ["none", "estimated", "exact"]},
            ),
        ]

    def create(self) -> dict[str, Any]:
        """`POST /{name}`."""
        answers = {201: self._created(), **error_answers(400, 401, 403, 409, 413, 415, 422, 503)}
        return self._operation(
            "create",
            f"Create one of {self._name}",
            "The server sets the id and the fields that the form does not have.",
            answers,
            requestBody=self._body(self._forms.create, JSON),
        ) | {"status_code": 201}

    def get(self) -> dict[str, Any]:
        """`GET /{name}/{id}`."""
        answers = {
            200: self._one("The document."),
            304: {"description": "The caller has the document already.", "headers": {"ETag": _ETAG}},
            **error_answers(401, 404, 422, 503),
        }
        return self._operation(
            "get",
            f"Get one of {self._name}",
            "Fields that are not stored are absent.",
            answers,
            parameters=[_IF_NONE_MATCH],
        )

    def replace(self) -> dict[str, Any]:
        """`PUT /{name}/{id}`."""
        answers = {
            200: self._one("The document as it is now."),
            201: self._created(),
            **error_answers(400, 401, 403, 404, 409, 412, 413, 415, 422, 503),
        }
        put_header = _header("If-None-Match", "`*` creates the document under the given id.")
        return self._operation(
            "replace",
            f"Replace one of {self._name}",
            "Sets all fields that the caller may set; those that the body lacks get their defaults.",
            answers,
            parameters=[_IF_MATCH, put_header],
            requestBody=self._body(self._forms.create, JSON),
        )

    def patch(self) -> dict[str, Any]:
        """`PATCH /{name}/{id}`."""
        answers = {
            200: self._one("The document as it is now."),
            **error_answers(400, 401, 403, 404, 409, 412, 413, 415, 422, 503),
        }
        return self._operation(
            "patch",
            f"Change one of {self._name}",
            "JSON Merge Patch (RFC 7396): fields that the patch names are set, null removes a field. The resulting "
            "document is validated as a whole. No concurrent write is lost.",
            answers,
            parameters=[_IF_MATCH],
            requestBody=self._body(self._forms.update, MERGE_PATCH, JSON),
        )

    def patch_with(self, form: type[BaseModel], description: str) -> dict[str, Any]:
        """`PATCH /{name}/{id}` with a form of its own, where the class's fields have other ways to change."""
        documented = self.patch()
        documented["openapi_extra"]["requestBody"] = self._body(form, MERGE_PATCH, JSON)
        return documented | {"description": description}

    def delete(self) -> dict[str, Any]:
        """`DELETE /{name}/{id}`."""
        answers = {
            204: {"description": "The document is deleted.", "headers": {"X-Position": _POSITION}},
            **error_answers(401, 403, 404, 412, 422, 503),
        }
        return self._operation("delete", f"Delete one of {self._name}", "", answers, parameters=[_IF_MATCH]) | {
            "status_code": 204
        }


def page_model(resource: ResourceClass, forms: Forms) -> type[BaseModel]:
    """The model of a page of documents."""
    item: Any = _item_model(resource, forms)
    return create_model(
        f"{resource.label}Page",
        __config__=ConfigDict(extra="forbid"),
        __doc__=f"A page of {resource.name}.",
        items=(list[item], Field(description="The documents, in order.")),
        has_next=(bool, Field(description="Whether more follow.")),
        next_cursor=(str | None, Field(None, description="Give it as `cursor` to get the next page.")),
        total=(int | None, Field(None, description="How many match, when counted.")),
        page=(int | None, None),
        page_size=(int | None, None),
        total_pages=(int | None, None),
    )


def _item_model(resource: ResourceClass, forms: Forms) -> type[BaseModel]:
    """The public form as it stands in a list, where `fields` may have selected some of it."""

    def only_the_id_is_always_there(schema: dict[str, Any]) -> None:
        schema["required"] = ["id"]
        schema.pop("examples", None)

    return create_model(
        f"{resource.label}Item",
        __base__=forms.public,
        __doc__=f"One of {resource.name}, or the fields of it that `fields` selects.",
        __cls_kwargs__={"json_schema_extra": only_the_id_is_always_there},
    )


def install_openapi(app: FastAPI, models: list[type[BaseModel]], token_url: str) -> None:
    """Serve a document whose components include `models`, which the operations refer to by name.

    `token_url` is where a password is exchanged for a token (OAuth2's password flow).
    """

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                openapi_version="3.1.0",
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            inputs: list[tuple[type[BaseModel], Literal["validation"]]] = [(ProblemDetails, "validation")]
            inputs += [(model, "validation") for model in models]
            _, definitions = models_json_schema(inputs, ref_template=_REF)
            components = document.setdefault("components", {})
            components["schemas"] = components.get("schemas", {}) | definitions.get("$defs", {})
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "password": {"type": "oauth2", "flows": {"password": {"tokenUrl": token_url, "scopes": {}}}},
            }
            # Anonymous callers see what the rules give them, so a token is an option and not a demand.
            document["security"] = [{}, {"bearer": []}, {"password": []}]
            app.openapi_schema = document
        return app.openapi_schema

    # FastAPI's documented way to change the document.
    app.openapi = build  # type: ignore[method-assign]
