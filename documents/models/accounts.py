"""Users, their sessions and their API keys. They have routes of their own instead of the generic ones."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from beanie import PydanticObjectId
from pydantic import BaseModel, EmailStr, Field
from pymongo import IndexModel

from documents.access import Access, owner, role, signed_in
from documents.markers import Hidden, ReadOnly, References, VisibleTo
from documents.resources import LiveDocument, Resource, utc_now

Role = Literal["user", "moderator", "admin"]

#: Emails and usernames are unique without regard to case; their keys hold the case-folded form.
USERNAME_PATTERN = r"^[\w.\-]+$"


class User(LiveDocument):
    """A person or program that can sign in."""

    username: Annotated[
        str, Field(min_length=2, max_length=40, pattern=USERNAME_PATTERN, description="Shown to other users.")
    ]
    email: Annotated[EmailStr, VisibleTo("admin"), Field(description="Where mail is sent.")]
    roles: Annotated[list[Role], VisibleTo("admin"), Field(description="What the user may do.")] = ["user"]
    is_active: Annotated[bool, VisibleTo("admin"), Field(description="Whether the user may sign in.")] = True
    username_key: Annotated[str, Hidden(), Field(description="The username, case-folded; unique.")]
    email_key: Annotated[str, Hidden(), Field(description="The email address, case-folded; unique.")]
    password_hash: Annotated[str, Hidden(), Field(description="argon2id, in the PHC string format.")]
    # For others, these would tell that something has changed which they may not see.
    created_at: Annotated[
        dt.datetime,
        ReadOnly(),
        VisibleTo("admin"),
        Field(default_factory=utc_now, description="When the user registered."),
    ]
    updated_at: Annotated[
        dt.datetime,
        ReadOnly(),
        VisibleTo("admin"),
        Field(default_factory=utc_now, description="When the API last wrote the user."),
    ]
    revision: Annotated[
        int, ReadOnly(), VisibleTo("admin"), Field(default=1, ge=1, description="Counts the API's writes of the user.")
    ]

    class Settings:
        name = "users"
        indexes = [
            IndexModel([("username_key", 1)], name="username_unique", unique=True),
            IndexModel([("email_key", 1)], name="email_unique", unique=True),
        ]

    resource = Resource(
        access=Access(read=signed_in, update=role("admin"), delete=role("admin")),
        generic=False,
        scopes=("read",),
        authorship=VisibleTo("admin"),
    )


class SpentToken(BaseModel):
    """A refresh token that has been exchanged for its successor."""

    hash: Annotated[str, Field(description="SHA-256 of the token.")]
    at: Annotated[dt.datetime, Field(description="When it was exchanged.")]


class Session(LiveDocument):
    """One sign-in of a user on one device. Ending it ends its tokens."""

    user_id: Annotated[PydanticObjectId, References("users"), ReadOnly()]
    ends_at: Annotated[dt.datetime, ReadOnly(), Field(description="When the session ends by itself.")]
    ended_at: Annotated[dt.datetime | None, ReadOnly(), Field(description="When it was ended before that.")] = None
    refresh_hash: Annotated[
        str | None,
        Hidden(),
        Field(description="SHA-256 of the refresh token in force; the token itself is not stored."),
    ] = None
    spent_tokens: Annotated[
        list[SpentToken], Hidden(), Field(description="Refresh tokens exchanged in the last seconds.")
    ] = []

    class Settings:
        name = "sessions"
        indexes = [
            IndexModel([("user_id", 1)], name="by_user"),
            IndexModel([("ends_at", 1)], name="expire_after_end", expireAfterSeconds=0),
        ]

    resource = Resource(access=Access(read=owner("user_id") | role("admin")), generic=False, scopes=())


class ApiKey(LiveDocument):
    """A key that a program signs in with instead of its owner's password."""

    name: Annotated[str, Field(min_length=1, max_length=80, description="What the key is for.")]
    user_id: Annotated[PydanticObjectId, References("users"), ReadOnly()]
    scopes: Annotated[
        list[str], Field(min_length=1, max_length=200, description="What the key is good for, such as `posts:read`.")
    ]
    expires_at: Annotated[dt.datetime | None, Field(description="When the key stops working.")] = None
    key_hash: Annotated[str, Hidden(), Field(description="SHA-256 of the key; the key itself is not stored.")]

    class Settings:
        name = "api_keys"
        indexes = [
            IndexModel([("key_hash", 1)], name="key_unique", unique=True),
            IndexModel([("user_id", 1)], name="by_user"),
        ]

    # Keys are made in `documents.api_keys`, and never changed: a program that needs other rights gets another key.
    resource = Resource(
        access=Access(read=owner("user_id") | role("admin"), delete=owner("user_id") | role("admin")),
        generic=False,
        scopes=(),
        examples=({"name": "Nightly report", "scopes": ["posts:read"], "expires_at": "2030-01-01T00:00:00.000Z"},),
    )
