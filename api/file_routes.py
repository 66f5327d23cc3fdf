"""Uploading, downloading and deleting files. Their metadata is read as any other document."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from email.utils import format_datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Send

from api import openapi
from api.bodies import JSON
from api.callers import CallerOf, SignedInCaller, challenge_unless_signed_in
from api.dispositions import SHOWN_INLINE, content_disposition
from api.idempotency import REPLAYED, Attempt, once
from api.methods import add_read_routes
from api.multipart import MULTIPART, Event, Part, PartEnd, boundary_of, parts_of
from api.negotiation import COMMON_HEADERS, JSON_ONLY
from api.problems import Problem
from api.ranges import NotSatisfiable, parse_date, range_of
from api.resource_routes import ResourceRoutes, preconditions_of
from api.services import Caller, Services, ServicesOf
from api.settings import Settings
from documents import (
    Content,
    DocumentsError,
    Forbidden,
    Forms,
    InvalidInput,
    ResourceClass,
    clean_filename,
    encode_json,
    key_reused,
    parse_id,
)

logger = logging.getLogger("headwater.api")

FIELD = "files"

#: A page that a browser makes of what it is sent may style itself (as its own page around a picture does), and no more.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MEDIA_TYPE = re.compile(r"[a-z]+/[A-Za-z0-9][A-Za-z0-9.+-]{0,100}")


def file_router(resource: ResourceClass, forms: Forms, settings: Settings) -> tuple[APIRouter, list[type[BaseModel]]]:
    """The routes of files, and the models that their description refers to."""
    router = APIRouter(prefix=f"/{resource.name}", tags=["Files"])
    docs = openapi.FileOperations(resource, forms, settings)
    metadata, routes = ResourceRoutes(resource), _Routes(resource)
    add_read_routes(router, "", metadata.list, docs.list_page())
    router.add_api_route("", routes.upload, methods=["POST"], dependencies=[JSON_ONLY], **docs.upload())
    add_read_routes(router, "/{id}", metadata.get, docs.get(), [JSON_ONLY])
    router.add_api_route("/{id}", routes.delete, methods=["DELETE"], **docs.delete())
    add_read_routes(router, "/{id}/content", routes.content, docs.content())
    return router, docs.models


class _Routes:
    """The handlers that other document classes do not have."""

    def __init__(self, resource: ResourceClass) -> None:
        self._resource = resource

    async def upload(
        self,
        request: Request,
        caller: SignedInCaller,
        services: ServicesOf,
        images_only: Annotated[
            Literal["true", "false"], Query(description="Refuse what is not an image made of pixels.")
        ] = "false",
    ) -> Response:
        boundary = boundary_of(request)

        async def store(attempt: Attempt) -> Response:
            return await self._store(request, caller, services, boundary, attempt, images_only=images_only == "true")

        # The bytes are read once, so what is claimed is the kind of body; the files are compared when they come again.
        answer = await once(request, caller, services, {"media_type": MULTIPART}, store)
        if REPLAYED in answer.headers:
            first = json.loads(bytes(answer.body))["items"]
            parts = parts_of(request, boundary, max_bytes=services.settings.max_upload_bytes)
            if await _digests(parts) != [(item["filename"], item["sha256"]) for item in first]:
                raise key_reused()
        return answer

    async def _store(
        self,
        request: Request,
        caller: Caller,
        services: Services,
        boundary: bytes,
        attempt: Attempt,
        *,
        images_only: bool,
    ) -> Response:
        parts = parts_of(request, boundary, max_bytes=services.settings.max_upload_bytes)
        async with (
            services.files.receive(caller.principal, images_only=images_only) as batch,
            contextlib.aclosing(parts),
        ):
            async for part in parts:
                match part:
                    case bytes():
                        await batch.write(part)
                    case PartEnd():
                        await batch.end()
                    case Part():
                        await batch.begin(_filename_of(part, len(batch.uploads)))
            found = await batch.commit()
        for one in found:
            attempt.shows(self._resource.name, parse_id(self._resource, one.document["id"]))
        headers = {**COMMON_HEADERS, "X-Position": services.positions.encode(found[0].position)}
        if len(found) == 1:
            headers["Location"] = f"{request.scope['path']}/{quote(str(found[0].document['id']))}"
        content = {"items": [one.document for one in found]}
        return Response(encode_json(content), status_code=201, media_type=JSON, headers=headers)

    async def content(
        self,
        id: str,
        request: Request,
        caller: CallerOf,
        services: ServicesOf,
        disposition: Annotated[
            Literal["attachment", "inline"],
            Query(description="`inline` lets a browser show an image in place; other files are always attachments."),
        ] = "attachment",
    ) -> Response:
        preconditions = preconditions_of(request)
        content = await services.files.content(id, caller.principal)
        answer = _Answer(content, inline=disposition == "inline")
        headers = answer.headers | {"X-Position": services.positions.encode(content.found.position)}
        if (
            preconditions.if_match is not None
            and preconditions.if_match != ()
            and (answer.etag not in preconditions.if_match)
        ):
            raise Problem(412, "The file is another one than you know.")
        if preconditions.if_none_match is not None:
            known = bool(answer.etag) and preconditions.is_known(answer.etag)
        else:
            known = _unmodified_since(request, answer.modified)
        if known:
            return Response(status_code=304, headers=headers)
        part = None
        if request.method == "GET":  # the only method that ranges are defined for
            try:
                part = range_of(request.headers, content.length, answer.etag, answer.modified)
            except NotSatisfiable:
                raise Problem(
                    416,
                    f"The range lies beyond the file, which has {content.length} bytes.",
                    headers={"Content-Range": f"bytes */{content.length}", "Accept-Ranges": "bytes"},
                ) from None
        start, stop = (part.start, part.stop) if part else (0, content.length)
        headers |= {"Content-Type": answer.media_type, "Content-Length": str(stop - start)}
        if part:
            headers["Content-Range"] = part.content_range
        if request.method == "HEAD":
            return Response(headers=headers)
        body = await _begun(content.read(start, stop))
        return _Download(body, status_code=206 if part else 200, headers=headers)

    async def delete(self, id: str, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
        try:
            position = await services.files.delete(id, caller.principal, preconditions_of(request))
        except Forbidden:
            challenge_unless_signed_in(caller)
            raise
        return Response(status_code=204, headers={"X-Position": services.positions.encode(position)})


async def _digests(parts: AsyncGenerator[Event, None]) -> list[tuple[str, str]]:
    """The names and SHA-256 of the files of a body."""
    found: list[tuple[str, str]] = []
    filename, digest = "", hashlib.sha256()
    async with contextlib.aclosing(parts):
        async for part in parts:
            match part:
                case bytes():
                    digest.update(part)
                case PartEnd():
                    found.append((filename, digest.hexdigest()))
                case Part():
                    filename, digest = clean_filename(_filename_of(part, len(found))), hashlib.sha256()
    return found


def _filename_of(part: Part, place: int) -> str:
    """The name of a file's part, the `place`th. Raises InvalidInput for a part that is something else."""
    if part.name != FIELD:
        raise InvalidInput.at("body", part.name[:100], msg=f"the only field is `{FIELD}`", type="extra_forbidden")
    if not part.filename:
        raise InvalidInput.at("body", FIELD, place, msg="a file is expected, and it has a filename", type="filename")
    return part.filename


class _Answer:
    """What the headers say of a content. Metadata may have been written by hand, so nothing of it is taken on trust."""

    def __init__(self, content: Content, *, inline: bool) -> None:
        document = content.found.document
        media_type, sha256 = document.get("content_type"), document.get("sha256")
        if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
            media_type = "application/octet-stream"
        self.media_type = f"{media_type}; charset=utf-8" if media_type == "text/plain" else media_type
        self.etag = f'"{sha256}"' if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else ""
        self.modified = _time(document.get("created_at"))
        shown = inline and media_type in SHOWN_INLINE
        self.headers = {
            **COMMON_HEADERS,
            # A changed byte would be another content than the tag's, and ranges would not fit.
            "Cache-Control": f"{COMMON_HEADERS['Cache-Control']}, no-transform",
            "Accept-Ranges": "bytes",
            "Content-Disposition": content_disposition(str(document.get("filename", "")), inline=shown),
            "Content-Security-Policy": _POLICY,
        }
        if self.etag:
            self.headers["ETag"] = self.etag
        if self.modified is not None:
            self.headers["Last-Modified"] = format_datetime(self.modified, usegmt=True)


def _time(text: Any) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _unmodified_since(request: Request, modified: dt.datetime | None) -> bool:
    since = parse_date(request.headers.get("if-modified-since", ""))
    return since is not None and modified is not None and modified.replace(microsecond=0) <= since


async def _begun(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, of which the first are there already: until then a fault still has an answer of its own."""
    first = await anext(body, None)

    async def all_of_it() -> AsyncIterator[bytes]:
        if first is not None:
            yield first
        async for data in body:
            yield data

    return all_of_it()


class _Download(StreamingResponse):
    """Ends the connection when the content breaks off: the client sees less than `Content-Length` promised."""

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except DocumentsError as error:
            # Without the answer's end, the server below closes the connection.
            logger.warning("a download broke off: %s", error)
