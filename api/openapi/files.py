"""The operations of files, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from api.openapi.answers import (
    ETAG,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    LAST_MODIFIED,
    POSITION,
    REF,
    error_answers,
    header_parameter,
)
from api.openapi.models import page_model
from api.openapi.operations import Operations
from api.settings import Settings
from documents import MAX_FILES, Forms, ResourceClass

_BINARY = {"schema": {"type": "string", "format": "binary"}}
#: Whatever type is found. Generators of clients know the first of these.
_BYTES = {"application/octet-stream": _BINARY, "*/*": _BINARY}
_TEXT = {"schema": {"type": "string"}}


class FileOperations(Operations):
    """What FastAPI is told of the operations of files."""

    def __init__(self, resource: ResourceClass, forms: Forms, settings: Settings) -> None:
        super().__init__(resource, forms, settings)
        public: Any = forms.public
        uploaded = create_model(
            f"{resource.label}Uploaded",
            __config__=ConfigDict(extra="forbid"),
            __doc__="What is known of the files that were uploaded together.",
            items=(list[public], Field(description="One for each file, in the order in which they came.")),
        )
        self.models: list[type[BaseModel]] = [forms.public, page_model(resource, forms), uploaded]
        self._uploaded = uploaded

    def upload(self) -> dict[str, Any]:
        """`POST /files`."""
        answers: dict[int | str, dict[str, Any]] = {
            201: {
                "description": "All files are stored.",
                "content": {"application/json": {"schema": {"$ref": REF.format(model=self._uploaded.__name__)}}},
                "headers": {
                    "X-Position": POSITION,
                    "Location": {"description": "The address of the metadata, when it is one file.", **_TEXT},
                },
            },
            **error_answers(400, 401, 403, 406, 409, 413, 415, 422, 503),
        }
        form = {
            "type": "object",
            "required": ["files"],
            "additionalProperties": False,
            "properties": {
                "files": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_FILES,
                    "items": {"type": "string", "format": "binary"},
                    "description": "The files, each a part with a filename.",
                }
            },
        }
        example = {"files": ["The gauge stood at 3.4 m this morning."]}
        largest = self._settings.max_upload_bytes
        return self._operation(
            "upload",
            "Upload files",
            f"One file or several (at most {MAX_FILES}, and {largest} bytes in all): all of them are stored, or none. "
            "A file's type is found in its content; its name is made safe.",
            answers,
            parameters=[IDEMPOTENCY_KEY],
            requestBody={"required": True, "content": {"multipart/form-data": {"schema": form, "example": example}}},
        ) | {"status_code": 201}

    def content(self) -> dict[str, Any]:
        """`GET /files/{id}/content`."""
        described = {
            "ETag": ETAG | {"description": "The entity tag of the content, made from its SHA-256."},
            "Last-Modified": LAST_MODIFIED | {"description": "When the file was uploaded."},
            "X-Position": POSITION,
            "Accept-Ranges": {"description": "`bytes`", **_TEXT},
            "Content-Disposition": {"description": "`attachment` or `inline`, and the file's name.", **_TEXT},
        }
        content_range = {"description": "Which bytes these are, and of how many.", **_TEXT}
        refused = error_answers(401, 404, 412, 416, 422, 503)
        refused[404]["description"] = "There is no such file for this caller, or its content is gone."
        refused[416]["headers"] = {"Content-Range": content_range}
        answers: dict[int | str, dict[str, Any]] = {
            200: {"description": "The bytes.", "content": _BYTES, "headers": described},
            206: {
                "description": "The bytes of the range.",
                "content": _BYTES,
                "headers": described | {"Content-Range": content_range},
            },
            304: {"description": "The caller has the content already.", "headers": {"ETag": ETAG}},
            **refused,
        }
        return self._operation(
            "get_content_of",
            "Download a file",
            "The bytes as they were uploaded. One range of bytes may be asked for; several are answered with the "
            "whole. A file that is deleted meanwhile breaks off.",
            answers,
            parameters=[
                header_parameter("Range", "The bytes wanted, such as `bytes=0-1023` or `bytes=-500`."),
                header_parameter("If-Range", "Heed `Range` only for this version: an entity tag, or a date."),
                IF_MATCH | {"description": "Answer only if the content has one of these entity tags."},
                IF_NONE_MATCH,
                header_parameter("If-Modified-Since", "Answer 304 if the file was uploaded no later."),
            ],
        )
