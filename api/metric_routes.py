"""`GET /metrics` for Prometheus. Outside /api/v1."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets

from fastapi import APIRouter, Request, Response
from fastapi.requests import HTTPConnection

from api.problems import Problem
from api.services import ServicesOf
from api.settings import Settings

router = APIRouter(include_in_schema=False)


@router.api_route("/metrics", methods=["GET", "HEAD"])
async def metrics(request: Request, services: ServicesOf) -> Response:
    """The figures of all workers, in the text format or as OpenMetrics. Raises 401 and 403 Problems."""
    _check(request, services.settings)
    services.figures.read()
    accept = request.headers.get("accept", "")
    # Reading the workers' files takes milliseconds, and waits for the one who tidies them.
    content, media_type = await asyncio.to_thread(services.figures.metrics.exposition, accept)
    headers = {"Cache-Control": "no-store", "Content-Type": media_type}
    return Response(content, headers=headers)


def _check(connection: HTTPConnection, settings: Settings) -> None:
    """Without a token only this machine may ask; with one whoever has it, and nobody else."""
    token = settings.metrics_token.get_secret_value()
    if not token:
        if not _is_loopback(connection):
            raise Problem(403, "Metrics are for this machine alone, unless HEADWATER_METRICS_TOKEN is set.")
        return
    scheme, _, given = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), token.encode()):
        challenge = {"WWW-Authenticate": 'Bearer realm="headwater metrics"'}
        raise Problem(401, "Send HEADWATER_METRICS_TOKEN as a bearer token.", headers=challenge)


def _is_loopback(connection: HTTPConnection) -> bool:
    if connection.client is None:
        return False
    try:
        address = ipaddress.ip_address(connection.client.host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
