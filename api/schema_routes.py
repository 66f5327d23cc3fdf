"""The served classes, described for programs, which build their forms and tables from it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from api import key_routes, openapi
from api.bodies import JSON
from api.callers import CallerOf
from api.methods import add_read_routes
from api.negotiation import COMMON_HEADERS, JSON_ONLY
from api.problems import Problem
from api.services import ServicesOf
from documents import (
    INVALID,
    Forms,
    Principal,
    Registry,
    ResourceClass,
    encode_json,
    forms_of,
    references_of,
    sort_kinds,
    sortable_names,
)

#: Where classes without the generic routes have routes of their own. Sessions have none, nor have an application's.
_OWN_PATHS = {"users": "users", "files": "files", "api_keys": key_routes.PATH.strip("/")}


class ResourceSummary(BaseModel):
    """A document class as the caller sees it."""

    name: str = Field(description="Its collection.", examples=["posts"])
    path: str | None = Field(
        None,
        description="Its place under `/api/v1`, which need not be its name: `api-keys`. Absent without such routes.",
        examples=["posts"],
    )
    label: str = Field(examples=["Post"])
    description: str
    generic: bool = Field(description="Whether it has the generic routes.")
    live: bool = Field(description="Whether it can be subscribed to.")
    conditional: bool = Field(description="Whether documents are changed and deleted only with `If-Match`.")
    searchable: list[str] = Field(description="The fields that `search` looks in.")
    sortable: list[str] = Field(description="The fields that `sort` takes.")
    references: dict[str, str] = Field(description="The fields that `expand` takes, and the classes they refer to.")
    reports: list[str]
    may: list[str] = Field(
        description="What the caller may do to some documents: `read`, `create`, `update`, `delete` and actions.",
        examples=[["read", "create"]],
    )


class ResourceSummaries(BaseModel):
    """All classes."""

    items: list[ResourceSummary]


class ResourceAction(BaseModel):
    """A custom action: `POST /{collection}/{id}/{name}`."""

    name: str = Field(examples=["moderate"])
    description: str
    form: dict[str, Any] = Field(description="The JSON Schema of its body.")


class ResourceForms(ResourceSummary):
    """A class with the JSON Schemas (2020-12) of its forms, without the fields that the caller does not see."""

    order: dict[str, list[str]] = Field(
        description="Every path that `sort` takes, nested ones too, and which kinds of values stand there. MongoDB "
        "compares by these, and JSON shows some of them (`date-time`, `decimal`, `object id`, …) as text.",
        examples=[{"id": ["object id"], "title": ["string"], "created_at": ["date-time"]}],
    )
    public: dict[str, Any] = Field(description="A document as it is read.")
    create: dict[str, Any] | None = Field(None, description="The body of POST and PUT; absent without such routes.")
    update: dict[str, Any] | None = Field(None, description="The body of PATCH as a merge patch.")
    actions: list[ResourceAction] = Field(description="Those that the caller may do to some documents.")


MODELS: list[type[BaseModel]] = [ResourceSummaries, ResourceForms, ResourceAction]


def schema_router(registry: Registry) -> APIRouter:
    """`/schemas` and `/schemas/{name}`."""
    router = APIRouter(prefix="/schemas", dependencies=[JSON_ONLY])
    routes = _Routes(registry)
    listed = openapi.operation(
        "list_schemas", "List the document classes", "What each offers to the caller.", 200, ResourceSummaries, 401, 503
    )
    one = openapi.operation(
        "get_schema",
        "Get the JSON Schemas of a class",
        "Its public, create and update forms, without the fields that the caller does not see.",
        200,
        ResourceForms,
        *(401, 404, 422, 503),
    )
    one["responses"][404]["description"] = "There is no such class."
    for documented in (listed, one):
        documented["tags"] = ["Schemas"]
    for path, handler, documented in (("", routes.list, listed), ("/{name}", routes.get, one)):
        add_read_routes(router, path, handler, documented)
    return router


class _Routes:
    def __init__(self, registry: Registry) -> None:
        self._served = {r.name: r for r in registry if r.declared.generic or r.declared.live}
        self._forms: dict[str, Forms] = {name: forms_of(resource) for name, resource in self._served.items()}

    async def list(self, caller: CallerOf, services: ServicesOf) -> Response:
        items = [
            _summary(resource, services.registry, caller.principal)
            for resource in sorted(self._served.values(), key=lambda resource: resource.name)
        ]
        return _answer({"items": items})

    async def get(
        self,
        name: Annotated[str, Path(description="The class's collection.", examples=["posts"])],
        caller: CallerOf,
        services: ServicesOf,
    ) -> Response:
        if (resource := self._served.get(name)) is None:
            raise Problem(404, "There is no such class.")
        forms = self._forms[name]
        content = _summary(resource, services.registry, caller.principal)
        content["order"] = sort_kinds(resource.visible(caller.principal.roles))
        content["public"] = _schema(forms.public, resource, caller.principal)
        if resource.declared.generic:
            content["create"] = _schema(forms.create, resource, caller.principal)
            content["update"] = _schema(forms.update, resource, caller.principal)
        content["actions"] = [
            {"name": action.name, "description": action.description, "form": _dialect(action.form.model_json_schema())}
            for action in resource.actions.values()
            if resource.may_ever(action.name, caller.principal)
        ]
        return _answer(content)


def _summary(resource: ResourceClass, registry: Registry, principal: Principal) -> dict[str, Any]:
    visible = resource.visible(principal.roles)
    seen = {f.public for f in visible.values()}
    path = resource.name if resource.declared.generic else _OWN_PATHS.get(resource.name)
    return {
        "name": resource.name,
        **({"path": path} if path else {}),
        "label": resource.label,
        "description": resource.doc,
        "generic": resource.declared.generic,
        "live": resource.declared.live,
        "conditional": resource.declared.conditional,
        "searchable": [path for path in resource.declared.search if path in visible],
        "sortable": sortable_names(visible),
        "references": {
            name: target for name, target in references_of(resource).items() if name in seen and registry.get(target)
        },
        "reports": list(resource.declared.reports),
        "may": [
            operation
            for operation in ("read", "create", "update", "delete", *resource.actions)
            if resource.may_ever(operation, principal)
        ],
    }


def _schema(form: type[BaseModel], resource: ResourceClass, principal: Principal) -> dict[str, Any]:
    schema = form.model_json_schema()
    seen = {f.public for f in resource.visible(principal.roles).values()} | {INVALID}
    schema["properties"] = {name: part for name, part in schema.get("properties", {}).items() if name in seen}
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name in seen]
    if "examples" in schema:
        schema["examples"] = [{n: v for n, v in example.items() if n in seen} for example in schema["examples"]]
    definitions = schema.pop("$defs", {})
    kept: dict[str, Any] = {}
    # Those that only a hidden field used would tell of it.
    while found := [name for name in definitions if name not in kept and _refers(schema, kept, name)]:
        kept |= {name: definitions[name] for name in found}
    return _dialect(schema | ({"$defs": kept} if kept else {}))


def _dialect(schema: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _refers(schema: dict[str, Any], definitions: dict[str, Any], name: str) -> bool:
    return f'"#/$defs/{name}"'.encode() in encode_json([schema, definitions])


def _answer(content: Any) -> Response:
    return Response(encode_json(content), media_type=JSON, headers=COMMON_HEADERS)
