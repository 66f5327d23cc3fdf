"""Content negotiation: which of the forms that we have the client wants (RFC 9110, 12.5.1). The one place for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fastapi import Depends, Request

from api.bodies import JSON
from api.problems import Problem

NDJSON = "application/x-ndjson"
CSV = "text/csv"
EVENTS = "text/event-stream"

#: The forms of a list, the usual one first.
LIST_TYPES = (JSON, NDJSON, CSV, EVENTS)

#: Of every answer to a read: whose it is, and what it depends on.
COMMON_HEADERS = {
    "Cache-Control": "private, no-cache",
    "Vary": "Accept, Accept-Encoding, Authorization, X-API-Key, Origin",
}

_QUALITY = re.compile(r"q=([0-9](?:\.[0-9]*)?)")

#: The codings that answers may have, the best one first.
CODINGS = ("zstd", "br", "gzip")


def negotiate(accept: Sequence[str], offered: Sequence[str]) -> str:
    """The media type of `offered` that `Accept` headers prefer. Answers 406 when they allow none.

    The greatest quality wins; of equal ones the type that is named more exactly, then the one offered first. Without
    the header everything is welcome.
    """
    ranges = list(_ranges(accept))
    if not ranges:
        return offered[0]
    best, rated = "", (0.0, 0)
    for media_type in offered:
        if (rating := _rating(media_type, ranges)) > rated and rating[0] > 0:
            best, rated = media_type, rating
    if not best:
        raise Problem(406, f"This address answers with {', '.join(offered)}; the request accepts none of these.")
    return best


def _rating(media_type: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int]:
    """The quality of the most exact range that covers the type, and how exact it is (3: by name)."""
    covering = {media_type: 3, f"{media_type.partition('/')[0]}/*": 2, "*/*": 1}
    exactness, quality = max(
        ((covering[name], quality) for name, quality in ranges if name in covering), default=(0, 0.0)
    )
    return quality, exactness


def negotiate_coding(accept: Sequence[str]) -> tuple[str | None, bool]:
    """The coding of CODINGS that `Accept-Encoding` prefers (RFC 9110, 12.5.3), and whether a plain answer will do.

    The greatest quality wins; of equal ones the first of CODINGS. None where nothing is asked for, or nothing that
    there is, or a plain answer more.
    """
    qualities = dict(_ranges(accept))
    others = qualities.get("*", 0.0)
    plain = qualities.get("identity", 0.0 if "*" in qualities and not others else None)
    best = max(CODINGS, key=lambda coding: qualities.get(coding, others))
    if (quality := qualities.get(best, others)) == 0 or quality < (plain or 0.0):
        return None, plain != 0
    return best, plain != 0


def _ranges(accept: Sequence[str]) -> Iterator[tuple[str, float]]:
    """What is named, in lower case, and its quality. One whose quality cannot be read is taken as if it had none."""
    for part in ",".join(accept).split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name:
            found = [match for parameter in parameters if (match := _QUALITY.fullmatch(parameter))]
            yield name, min(float(found[0].group(1)), 1.0) if found else 1.0


def _accepts_json(request: Request) -> None:
    negotiate(request.headers.getlist("accept"), (JSON,))


def _accepts_ndjson(request: Request) -> None:
    negotiate(request.headers.getlist("accept"), (NDJSON,))


#: For routes whose answers are JSON: 406 to a client that will not have it, before anything is done. Errors are
#: problems whatever `Accept` says.
JSON_ONLY = Depends(_accepts_json)
NDJSON_ONLY = Depends(_accepts_ndjson)
