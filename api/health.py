"""Liveness and readiness, for supervisors and load balancers. Outside /api/v1."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.bodies import JSON
from api.services import ServicesOf
from documents import DatabaseAway, encode_json

router = APIRouter(prefix="/health", include_in_schema=False)
_NO_STORE = {"Cache-Control": "no-store"}


@router.api_route("/live", methods=["GET", "HEAD"])
async def live() -> Response:
    """The process runs. Never depends on anything else."""
    return Response(encode_json({"status": "live"}), media_type=JSON, headers=_NO_STORE)


@router.api_route("/ready", methods=["GET", "HEAD"])
async def ready(services: ServicesOf) -> Response:
    """200 when requests can be served: the database answers, and the worker is not draining. Else 503."""
    checks = {"database": "ok", "feed": "ok", "worker": "ok"}
    try:
        await services.database.ping()
    except DatabaseAway:
        checks["database"] = "away"
    if not services.feed.connected:
        checks["feed"] = "away"
    if services.manager.draining:
        checks["worker"] = "draining"
    ok = all(state == "ok" for state in checks.values())
    content = {"status": "ready" if ok else "not ready", "checks": checks}
    return Response(encode_json(content), status_code=200 if ok else 503, media_type=JSON, headers=_NO_STORE)
