"""Uploads of the tests, and what they leave in the database."""

from __future__ import annotations

from typing import Any

import httpx
from pymongo.database import Database

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 4


def upload(
    client: httpx.Client, *files: bytes, filename: str = "gauge.png", query: str = "", status: int = 201
) -> list[dict[str, Any]]:
    """Upload files in one request; returns their metadata."""
    answer = client.post(f"/files{query}", files=[("files", (filename, content)) for content in files])
    assert answer.status_code == status, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def post_raw(client: httpx.Client, body: Any, *, boundary: str = "b", **headers: str) -> httpx.Response:
    """Upload a body that no client would write."""
    content_type = f"multipart/form-data; boundary={boundary}"
    return client.post("/files", content=body, headers={"Content-Type": content_type} | headers)


def part(content: bytes, disposition: bytes = b'form-data; name="files"; filename="a.txt"', more: bytes = b"") -> bytes:
    """One part of a body, from its boundary `b` on."""
    return b"--b\r\nContent-Disposition: " + disposition + b"\r\n" + more + b"\r\n" + content + b"\r\n"


def orphans(mongo: Database[dict[str, Any]]) -> set[Any]:
    """Contents, or parts of them, that no metadata speaks of; and unfinished work."""
    known = set(mongo["files"].distinct("_id"))
    chunks = set(mongo["files.chunks"].distinct("files_id")) | set(mongo["files.files"].distinct("_id"))
    return (chunks - known) | set(mongo["headwater_unfinished"].distinct("_id"))
