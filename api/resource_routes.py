"""The routes that every registered document class gets."""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request, Response
from starlette.convertors import StringConvertor, register_url_convertor

from api import negotiation, openapi
from api.aggregate_routes import add_aggregate_routes
from api.bodies import JSON, PATCHES, media_type, read_json
from api.bulk_routes import add_bulk_routes
from api.callers import CallerOf, challenge_unless_signed_in
from api.event_stream import ListCaller, asks_for_events, live_list
from api.exports import export_list
from api.idempotency import Attempt, create_once, once
from api.imports import import_lines
from api.methods import add_read_routes
from api.negotiation import COMMON_HEADERS, JSON_ONLY, LIST_TYPES, NDJSON_ONLY, negotiate
from api.own_writes import reader_of
from api.queries import ListRequest, parse_list, parse_one, query_items
from api.services import Services, ServicesOf
from api.settings import Settings
from documents import (
    RESERVED_IDS,
    Forbidden,
    Forms,
    Found,
    Page,
    Position,
    Preconditions,
    ResourceClass,
    allotted_id,
    encode_json,
    parse_tags,
    selected,
)


class _DocumentId(StringConvertor):
    regex = f"(?!(?:{'|'.join(sorted(RESERVED_IDS))})$)[^/]+"


#: `/posts/import` and its like are other addresses, with methods of their own.
_ONE = "/{id:document_id}"


def resource_router(resource: ResourceClass, forms: Forms, settings: Settings) -> APIRouter:
    """The routes of one class, under its collection's name."""
    register_url_convertor("document_id", _DocumentId())
    router = APIRouter(prefix=f"/{resource.name}", tags=[resource.label])
    routes = ResourceRoutes(resource)
    docs = openapi.Operations(resource, forms, settings)
    add_read_routes(router, "", routes.list, docs.list_page())
    router.add_api_route("", routes.create, methods=["POST"], dependencies=[JSON_ONLY], **docs.create())
    router.add_api_route(
        "/import", routes.import_lines, methods=["POST"], dependencies=[NDJSON_ONLY], **docs.import_lines()
    )
    add_aggregate_routes(router, resource)
    add_bulk_routes(router, resource, openapi.BulkOperations(resource, forms, docs))
    add_read_routes(router, _ONE, routes.get, docs.get(), [JSON_ONLY])
    router.add_api_route(_ONE, routes.replace, methods=["PUT"], dependencies=[JSON_ONLY], **docs.replace())
    router.add_api_route(_ONE, routes.patch, methods=["PATCH"], dependencies=[JSON_ONLY], **docs.patch())
    router.add_api_route(_ONE, routes.delete, methods=["DELETE"], **docs.delete())
    return router


class ResourceRoutes:
    """The handlers of one class. They parse the request, call the store, and write the answer."""

    def __init__(self, resource: ResourceClass) -> None:
        self._resource = resource

    async def list(self, request: Request, caller: ListCaller, services: ServicesOf) -> Response:
        if asks_for_events(request):
            return live_list(request, self._resource, caller, services)
        match negotiate(request.headers.getlist("accept"), LIST_TYPES):
            case (negotiation.NDJSON | negotiation.CSV) as media_type:
                return export_list(request, self._resource, caller, services, media_type)
        asked = parse_list(
            self._resource,
            services.registry,
            caller.principal,
            query_items(request.scope["query_string"]),
            page_size_max=services.settings.page_size_max,
        )
        reader = reader_of(request)
        page = await services.read_cache.page(self._resource, asked.query, caller.principal, reader)
        headers = {**COMMON_HEADERS, "X-Position": services.positions.encode(page.position)}
        if page.total is not None:
            headers["X-Total-Count"] = str(page.total)
        if page.has_next:
            headers["Link"] = f'<{_next_url(request, page, asked)}>; rel="next"'
        documents = [found.document for found in page.items]
        if asked.expansion:
            documents = await services.expansions.embed(documents, asked.expansion, caller.principal)
        return Response(encode_json(_page_content(page, documents, asked)), media_type=JSON, headers=headers)

    async def create(self, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        body = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)

        def answer(found: Found) -> Response:
            location = f"{_path(request)}/{quote(str(found.document['id']), safe='')}"
            return answer_with(services, found, status=201, headers={"Location": location})

        async def run(attempt: Attempt) -> Response:
            id, repeated = attempt.document_id, attempt.is_repeated
            return answer(await create_once(self._resource, caller, services, body, id, repeated=repeated))

        async def again(document_id: Any) -> Response:
            return answer(await services.store.get(self._resource, str(document_id), caller.principal))

        return await once(request, caller, services, body, run, allot=lambda: allotted_id(self._resource), again=again)

    async def import_lines(self, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        return await import_lines(request, self._resource, caller, services)

    async def get(self, id: str, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        preconditions = preconditions_of(request)
        items = query_items(request.scope["query_string"])
        expansion = parse_one(self._resource, services.registry, caller.principal, items)
        found = await services.read_cache.get(self._resource, id, caller.principal, reader_of(request))
        if expansion:
            # It is made of several documents, so it has neither the tag nor the date of the one.
            (document,) = await services.expansions.embed([found.document], expansion, caller.principal)
            headers = {**COMMON_HEADERS, "X-Position": services.positions.encode(found.position)}
            return Response(encode_json(document), media_type=JSON, headers=headers)
        if preconditions.is_known(found.etag):
            headers = {**COMMON_HEADERS, "ETag": found.etag, "X-Position": services.positions.encode(found.position)}
            return Response(status_code=304, headers=headers)
        return answer_with(services, found)

    async def replace(self, id: str, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        body = await read_json(request, (JSON,), max_bytes=services.settings.max_body_bytes)
        try:
            found, created = await services.store.replace(
                self._resource, id, caller.principal, body, preconditions_of(request)
            )
        except Forbidden:
            challenge_unless_signed_in(caller)
            raise
        headers = {"Location": _path(request)} if created else None
        return answer_with(services, found, status=201 if created else 200, headers=headers)

    async def patch(self, id: str, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        content = await read_json(request, tuple(PATCHES), max_bytes=services.settings.max_body_bytes)
        store, kind = services.store, PATCHES[media_type(request)]
        preconditions = preconditions_of(request)
        try:
            patch = store.prepare(self._resource, caller.principal, kind, content)
            found = await store.patch(self._resource, id, caller.principal, patch, preconditions)
        except Forbidden:
            challenge_unless_signed_in(caller)
            raise
        return answer_with(services, found)

    async def delete(self, id: str, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        try:
            position = await services.store.delete(self._resource, id, caller.principal, preconditions_of(request))
        except Forbidden:
            challenge_unless_signed_in(caller)
            raise
        return Response(status_code=204, headers={"X-Position": _encoded(services, position)})


def preconditions_of(request: Request) -> Preconditions:
    """What `If-Match` and `If-None-Match` ask for."""
    headers = request.headers
    return Preconditions(
        parse_tags(_joined(headers.getlist("if-match")), "If-Match"),
        parse_tags(_joined(headers.getlist("if-none-match")), "If-None-Match"),
    )


def _joined(values: list[str]) -> str | None:
    return ", ".join(values) if values else None


def _encoded(services: Services, position: Position) -> str:
    return services.positions.encode(position)


def answer_with(
    services: Services, found: Found, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """One document, with the headers that describe it."""
    all_headers = {
        **COMMON_HEADERS,
        "ETag": found.etag,
        "X-Position": _encoded(services, found.position),
        **(headers or {}),
    }
    if found.updated_at is not None:
        all_headers["Last-Modified"] = format_datetime(found.updated_at.astimezone(dt.UTC), usegmt=True)
    return Response(encode_json(found.document), status_code=status, media_type=JSON, headers=all_headers)


def _page_content(page: Page, documents: list[dict[str, Any]], asked: ListRequest) -> dict[str, Any]:
    items = [_selected(document, asked.fields) for document in documents]
    if asked.query.page is None:
        content: dict[str, Any] = {"items": items, "next_cursor": page.next_cursor, "has_next": page.has_next}
        return content if page.total is None else {**content, "total": page.total}
    content = {
        "items": items,
        "page": asked.query.page,
        "page_size": asked.query.limit,
        "has_next": page.has_next,
    }
    if page.total is not None:
        content |= {"total": page.total, "total_pages": -(-page.total // asked.query.limit)}
    return content


def _selected(document: dict[str, Any], fields: tuple[str, ...] | None) -> dict[str, Any]:
    if fields is None:
        return document
    return selected(document, (*fields, "expanded"))


def _next_url(request: Request, page: Page, asked: ListRequest) -> str:
    """The path and query of the next page. Relative, so it is right behind any proxy."""
    changed = {"cursor": page.next_cursor} if asked.query.page is None else {"page": str(asked.query.page + 1)}
    kept = [(name, value) for name, value in request.query_params.multi_items() if name not in changed]
    return f"{_path(request)}?{urlencode([*kept, *changed.items()])}"


def _path(request: Request) -> str:
    """The request's path as it goes into a header: a client's id may have any characters."""
    return quote(request.scope["path"])
