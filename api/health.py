"""Liveness and readiness, for supervisors and load balancers. Outside /api/v1."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from api.bodies import JSON
from api.services import ServicesOf
from documents import Database, DatabaseAway, encode_json

router = APIRouter(prefix="/health", include_in_schema=False)
_NO_STORE = {"Cache-Control": "no-store"}
_REDIS = {True: "ok", False: "away", None: "unused"}


@router.api_route("/live", methods=["GET", "HEAD"])
async def live() -> Response:
    """The process runs. Never depends on anything else."""
    return Response(encode_json({"status": "live"}), media_type=JSON, headers=_NO_STORE)


@router.api_route("/ready", methods=["GET", "HEAD"])
async def ready(services: ServicesOf) -> Response:
    """200 when requests can be served: the database answers, changes come in, and the worker is not draining. Else 503.

    Redis alone is no reason to send clients away: without it the worker reads the changes itself.
    """
    status = services.feed_status
    database, redis = await asyncio.gather(_answers(services.database), status.redis_answers())
    checks = {
        "database": "ok" if database else "away",
        "feed": "ok" if services.feed.connected else "away",
        # Asked last: what was begun to be answered as ready may be too late by now.
        "worker": "draining" if services.manager.draining else "ok",
    }
    ok = all(state == "ok" for state in checks.values())
    content = {
        "status": "ready" if ok else "not ready",
        "checks": checks,
        "redis": _REDIS[redis],
        "feed_mode": status.mode,
        "relay_lag_seconds": round(status.lag_seconds, 3),
    }
    return Response(encode_json(content), status_code=200 if ok else 503, media_type=JSON, headers=_NO_STORE)


async def _answers(database: Database) -> bool:
    try:
        await database.ping()
    except DatabaseAway:
        return False
    return True
