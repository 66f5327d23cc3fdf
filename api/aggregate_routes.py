"""Distinct values and declared reports of a class."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api import openapi
from api.bodies import JSON
from api.callers import CallerOf
from api.methods import add_read_routes
from api.negotiation import COMMON_HEADERS, JSON_ONLY
from api.queries import parse_distinct_query, query_items
from api.services import Services, ServicesOf
from documents import Report, ResourceClass, Rows, encode_json, parse_distinct


def add_aggregate_routes(router: APIRouter, resource: ResourceClass) -> None:
    """Add `/distinct/{field}`, and `/reports/…` for each report."""
    distinct = _Distinct(resource)
    documented = openapi.distinct_operation(resource)
    add_read_routes(router, "/distinct/{field}", distinct.get, documented, [JSON_ONLY])
    for name, report in resource.declared.reports.items():
        documented = openapi.report_operation(resource, name, report)
        add_read_routes(router, f"/reports/{name}", _Report(resource, report).get, documented, [JSON_ONLY])


_Field = Annotated[
    str, Path(description="A field that the caller sees, dotted where it is nested.", examples=["created_at"])
]


class _Distinct:
    def __init__(self, resource: ResourceClass) -> None:
        self._resource = resource

    async def get(self, field: _Field, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        principal = caller.principal
        wanted = parse_distinct(field, self._resource.visible(principal.roles))
        asked = parse_distinct_query(self._resource, principal, query_items(request.scope["query_string"]))
        rows = await services.aggregates.distinct(
            self._resource, wanted, asked.filter, principal, limit=asked.limit, counted=asked.counted
        )
        return _answer(rows, services)


class _Report:
    def __init__(self, resource: ResourceClass, report: Report) -> None:
        self._resource = resource
        self._report = report

    async def get(self, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        arguments = self._report.arguments(query_items(request.scope["query_string"]))
        rows = await services.aggregates.report(self._resource, self._report, arguments, caller.principal)
        return _answer(rows, services)


def _answer(rows: Rows, services: Services) -> Response:
    headers = {**COMMON_HEADERS, "X-Position": services.positions.encode(rows.position)}
    return Response(encode_json({"items": rows.items, "more": rows.more}), media_type=JSON, headers=headers)
