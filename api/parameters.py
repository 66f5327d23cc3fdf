"""Query parameters that an operation does not have. One that is misspelt would otherwise be ignored in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from api.bodies import check_media_type
from api.callers import refuse_credentials_in_query
from api.queries import query_items
from documents import Fault, InvalidInput


async def _refuse_unknown(request: Request) -> None:
    if not request.scope["query_string"]:
        return
    route: APIRoute = request.scope["route"]
    known = _declared(route)
    # Where there is a filter, each field has short forms, which are looked at with it.
    if "filter" in known:
        return
    items = query_items(request.scope["query_string"])
    unknown = dict.fromkeys(name for name, _ in items if name not in known)
    if not unknown:
        return
    if 401 in route.responses:
        refuse_credentials_in_query(request)
    # Who puts the body's fields here has sent them elsewhere than the operation looks: that is told, and not each name.
    body = (route.openapi_extra or {}).get("requestBody", {}).get("content", {})
    if body and unknown.keys() <= _fields(request, body):
        check_media_type(request, tuple(body))
    raise InvalidInput(
        [Fault(("query", name), "there is no parameter of this name", "unknown_field") for name in unknown]
    )


def _fields(request: Request, body: Mapping[str, Any]) -> set[str]:
    """The names of the fields of an operation's body, in any of its media types."""
    schemas: dict[str, Any] = request.app.openapi()["components"]["schemas"]
    forms = (kind["schema"] for kind in body.values())
    named = (schemas[form["$ref"].rpartition("/")[2]] if "$ref" in form else form for form in forms)
    return {name for form in named for name in form.get("properties", ())}


def _declared(route: APIRoute) -> set[str]:
    """The names of an operation's query parameters, as the OpenAPI document has them."""
    described: list[dict[str, Any]] = (route.openapi_extra or {}).get("parameters", [])
    taken = {field.alias for field in route.dependant.query_params}
    return taken | {one["name"] for one in described if one["in"] == "query"}


#: For all operations: 422 to query parameters that the operation does not have; 415 where they are a body's.
KNOWN_PARAMETERS = Depends(_refuse_unknown)
