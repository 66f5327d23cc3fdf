"""What admins see and do of all workers: who serves, who is connected, and who is to be disconnected."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from api import openapi
from api.bodies import JSON
from api.callers import AdminCaller
from api.methods import add_read_routes
from api.queries import query_items
from api.services import ServicesOf
from api.session_routes import NO_STORE
from documents import AuditEvent, InvalidInput, encode_json, parse_user_id
from realtime import FeedMode, Transport

router = APIRouter(prefix="/admin")

MAX_CONNECTIONS = 1_000
_DEFAULT_CONNECTIONS = 100


class WorkerStatus(BaseModel):
    """One worker process. Counts are since its start."""

    id: str
    host: str
    pid: int
    started_at: dt.datetime
    draining: Annotated[bool, Field(description="It is about to stop, and sends its clients elsewhere.")]
    feed: Annotated[FeedMode, Field(description="Where it gets changes, as in the metrics.")]
    relay: Annotated[bool, Field(description="Whether it writes the log that all read.")]
    relay_lag_seconds: Annotated[float, Field(ge=0, description="How far it is behind the database.")]
    connections: int
    subscriptions: int
    views: int
    deliveries: Annotated[int, Field(description="Events put before subscribers.")]
    slow_consumers: Annotated[int, Field(description="How often a client read too slowly.")]
    outbox_bytes: Annotated[int, Field(description="What waits for clients to read it.")]


class WorkerList(BaseModel):
    """The workers that serve this database."""

    items: list[WorkerStatus]


class ConnectedUser(BaseModel):
    """Who signed in on a connection."""

    id: str
    username: str


class ConnectionStatus(BaseModel):
    """One live connection."""

    id: Annotated[str, Field(description="As `welcome` names it to the client.")]
    worker: str
    transport: Transport
    address: Annotated[str, Field(description="The client's address, of IPv6 its /64 network.")]
    user: Annotated[ConnectedUser | None, Field(description="null for an anonymous connection.")]
    opened_at: dt.datetime
    subscriptions: int
    outbox_bytes: Annotated[int, Field(description="What waits for the client to read it.")]
    sent_bytes: int


Silent = Annotated[list[str], Field(description="Workers that did not answer in time, and are left out.")]


class ConnectionList(BaseModel):
    """Live connections of all workers, those with the fullest outboxes first."""

    items: list[ConnectionStatus]
    total: Annotated[int, Field(description="How many there are, also beyond `limit`.")]
    silent: Silent


class ClosedConnections(BaseModel):
    """What closing a user's connections did."""

    closed: int
    silent: Silent


MODELS: list[type[BaseModel]] = [WorkerList, ConnectionList, ClosedConnections]

_USER = openapi.query_parameter("user", "The id of a user.", {"type": "string"})


def _documented(
    name: str, summary: str, description: str, answer: type[BaseModel], *parameters: dict[str, Any]
) -> dict[str, Any]:
    """What FastAPI is told of an operation for admins."""
    errors = (401, 422, 503) if parameters else (401, 503)
    documented = openapi.by_session(openapi.operation(name, summary, description, 200, answer, *errors))
    documented["tags"] = ["Administration"]
    documented["responses"][403] |= {"description": "Only an admin may do this, and not with an API key."}
    if parameters:
        documented["openapi_extra"] |= {"parameters": list(parameters)}
    return documented


async def list_workers(caller: AdminCaller, services: ServicesOf) -> Response:
    del caller  # whoever it is
    return _answer({"items": await services.roll_call.workers()})


add_read_routes(
    router,
    "/workers",
    list_workers,
    _documented(
        "list_workers",
        "List the worker processes",
        "All that serve this database, on all machines. What is told of another worker may be some seconds old.",
        WorkerList,
    ),
)


async def list_connections(request: Request, caller: AdminCaller, services: ServicesOf) -> Response:
    del caller  # whoever it is
    query = _query(request, "user", "limit")
    census = await services.roll_call.connections(_user(query), _limit(query))
    return _answer({"items": census.items, "total": census.total, "silent": census.silent})


add_read_routes(
    router,
    "/connections",
    list_connections,
    _documented(
        "list_connections",
        "List the live connections",
        "Of all workers, those with the fullest outboxes first. With several workers it takes up to three seconds.",
        ConnectionList,
        _USER,
        openapi.query_parameter(
            "limit",
            "How many to list.",
            {"type": "integer", "minimum": 1, "maximum": MAX_CONNECTIONS, "default": _DEFAULT_CONNECTIONS},
        ),
    ),
)


@router.delete(
    "/connections",
    **_documented(
        "close_connections",
        "Close the live connections of a user",
        "On all workers, with 4503: clients do not come back by themselves. Sessions and keys stay good; to keep the "
        "user out, deactivate the account. Workers that are silent do it when they are back, within a minute.",
        ClosedConnections,
        _USER | {"required": True, "example": "65f2a7c09b3e4a0d1c2f8b11"},
    ),
)
async def close_connections(request: Request, caller: AdminCaller, services: ServicesOf) -> Response:
    user_id = _user(_query(request, "user"))
    if user_id is None:
        raise InvalidInput.at("query", "user", msg="the id of a user is expected", type="missing")
    kicked = await services.roll_call.kick(user_id)
    services.note(AuditEvent.CONNECTIONS_CLOSED, user_id, by=caller.principal.user_id, closed=kicked.closed)
    return _answer({"closed": kicked.closed, "silent": kicked.silent})


def _query(request: Request, *known: str) -> dict[str, str]:
    """The query string. Raises InvalidInput for what is not known, and for what stands there twice."""
    found: dict[str, str] = {}
    for name, value in query_items(request.scope["query_string"]):
        if name not in known:
            raise InvalidInput.at("query", name[:100], msg="there is no such parameter", type="extra_forbidden")
        if name in found:
            raise InvalidInput.at("query", name, msg="the parameter is given twice", type="duplicate")
        found[name] = value
    return found


def _user(query: dict[str, str]) -> object:
    if "user" not in query:
        return None
    user_id = parse_user_id(query["user"])
    if user_id is None:
        raise InvalidInput.at("query", "user", msg="the id of a user has 24 hexadecimal digits", type="id")
    return user_id


def _limit(query: dict[str, str]) -> int:
    text = query.get("limit", str(_DEFAULT_CONNECTIONS))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_CONNECTIONS):
        raise InvalidInput.at("query", "limit", msg=f"a whole number from 1 to {MAX_CONNECTIONS}", type="limit")
    return int(text)


def _answer(content: dict[str, Any]) -> Response:
    return Response(encode_json(content), media_type=JSON, headers=NO_STORE)
