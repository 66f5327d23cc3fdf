"""Metadata of uploaded files. Their bytes are in GridFS, in the bucket `files` (see `documents.contents`)."""

from __future__ import annotations

from typing import Annotated

from beanie import PydanticObjectId
from pydantic import Field
from pymongo import IndexModel

from documents.access import Access, owner, role, signed_in
from documents.markers import ReadOnly, References, SetOnCreate, current_user
from documents.resources import LiveDocument, Resource


class StoredFile(LiveDocument):
    """What is known of one uploaded file. Its bytes are in the GridFS bucket `files` (collections files.files and
    files.chunks) under the same _id.
    """

    filename: Annotated[str, ReadOnly(), Field(min_length=1, max_length=255, description="The name it came with.")]
    content_type: Annotated[str, ReadOnly(), Field(description="Found from the content, not from the name.")]
    size: Annotated[int, ReadOnly(), Field(ge=0, description="Length in bytes.")]
    sha256: Annotated[
        str, ReadOnly(), Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the content, in hexadecimal digits.")
    ]
    owner_id: Annotated[
        PydanticObjectId,
        References("users"),
        SetOnCreate(current_user),
        Field(description="The user who uploaded it."),
    ]

    class Settings:
        name = "files"
        indexes = [IndexModel([("owner_id", 1), ("created_at", -1)], name="owner_newest")]

    resource = Resource(
        access=Access(
            read=owner("owner_id") | role("moderator", "admin"),
            create=signed_in,
            delete=owner("owner_id") | role("admin"),
        ),
        generic=False,
    )
