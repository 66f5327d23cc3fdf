"""Request bodies: size, media type and JSON, with the place of the fault."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Request

from api.problems import Problem
from documents import Fault

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"


async def read_json(request: Request, accepted: tuple[str, ...], *, max_bytes: int) -> Any:
    """The decoded JSON body. Answers 415, 413 or 400 otherwise; counts bytes while they arrive."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in accepted:
        raise Problem(
            415,
            f"The body must be {' or '.join(accepted)}.",
            headers={"Accept-Patch" if request.method == "PATCH" else "Accept": ", ".join(accepted)},
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise Problem(413, f"The body is larger than {max_bytes} bytes.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        place = Fault(("body", error.lineno, error.colno), f"not valid JSON: {error.msg}", "json_invalid")
        raise Problem(400, "The body is not valid JSON.", errors=[place]) from None
