"""Tickets, for browsers that open a WebSocket or an EventSource, where scripts can set no header."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api import openapi
from api.bodies import JSON
from api.callers import SignedInCaller
from api.problems import Problem
from api.services import ServicesOf
from api.session_routes import NO_STORE
from documents import TICKET_LIFETIME, Admission, encode_json

router = APIRouter()


class TicketAnswer(BaseModel):
    """A ticket."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ticket": "8Tq0…", "expires_in": 30}]})

    ticket: Annotated[str, Field(description="Send it once, as `?ticket=`.")]
    expires_in: Annotated[int, Field(description="Seconds until it ends unused.")]


MODELS: list[type[BaseModel]] = [TicketAnswer]


@router.post(
    "/auth/ticket",
    **openapi.operation(
        "create_ticket",
        "Get a ticket for a live connection",
        "Good once, within 30 seconds, as `?ticket=` of the WebSocket or of a list with `Accept: text/event-stream`; "
        "for nothing else. What it opens ends with the session or key that asked for the ticket, and has its scopes.",
        200,
        TicketAnswer,
        *(401, 503),
    ),
)
async def create_ticket(caller: SignedInCaller, services: ServicesOf) -> Response:
    if caller.credential is None:
        raise Problem(401, "Sign in first.")
    ticket = await services.tickets.issue(Admission(caller.credential, caller.expires_at))
    answer = {"ticket": ticket, "expires_in": int(TICKET_LIFETIME.total_seconds())}
    return Response(encode_json(answer), media_type=JSON, headers=NO_STORE)
