"""Posts and comments: something to begin with, and an example of how a class of your own looks."""

from __future__ import annotations

import datetime as dt
import enum
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from beanie import PydanticObjectId
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pymongo import IndexModel

from documents.access import Access, owner, role, signed_in, where
from documents.actions import Action, ActionForm, Notice, Performed
from documents.markers import DerivedFrom, References, SetOnCreate, VisibleTo, current_user
from documents.pipelines import Parameter, Report
from documents.resources import LiveDocument, Resource

_NOT_SLUG = re.compile(r"[^a-z0-9]+")


class PostStatus(enum.StrEnum):
    """Who sees a post: its author (draft), everyone (published), moderators and its author (hidden)."""

    DRAFT = "draft"
    PUBLISHED = "published"
    HIDDEN = "hidden"


class CommentStatus(enum.StrEnum):
    """Who sees a comment: everyone (published), or moderators and its author (hidden)."""

    PUBLISHED = "published"
    HIDDEN = "hidden"


_moderators = role("moderator", "admin")
_published = where({"status": "published"})
# An author may not touch what a moderator has hidden, nor hide a thing that only moderators could bring back.
_author_while_not_hidden = owner("author_id") & where({"status": {"$ne": "hidden"}})

_writing = {
    "create": signed_in & where({"status": {"$ne": "hidden"}}) | _moderators,
    "update": _author_while_not_hidden | _moderators,
    "delete": _author_while_not_hidden | _moderators,
}
_post_access = Access(read=_published | owner("author_id") | _moderators, **_writing)
#: A post that readers do not see takes its comments along, whatever their own status is.
_comment_access = Access(
    read=_published & where({"post_hidden": {"$ne": True}}) | owner("author_id") | _moderators, **_writing
)


class Moderation(ActionForm):
    """What a moderator decides, and why. Authors are told, and the audit keeps it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "hidden", "reason": "It gives away somebody's address."}]}
    )

    status: Annotated[Literal["published", "hidden"], Field(description="What the status becomes.")]
    reason: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=500),
        Field(description="Shown to the author."),
    ]


def _status(_: Mapping[str, Any], form: Moderation) -> Mapping[str, Any]:
    return {"status": form.status}


def _told_of(what: str, quoted: str) -> Callable[[Performed], Notice]:
    """What the author of a `what` is told; the field `quoted` says which one it is."""

    def notice(performed: Performed) -> Notice:
        form: Moderation = performed.form
        # On one line, so that nobody's text passes for ours.
        text = " ".join(str(performed.before.get(quoted, "")).split())[:200]
        done = "hidden from readers" if form.status == "hidden" else "published"
        return Notice(
            f"A moderator has decided on your {what}",
            (f"A moderator has set your {what} to: {done}.", "", f"> {text}", "", f"The reason given: {form.reason}"),
        )

    return notice


def _moderate(what: str, quoted: str) -> Action:
    return Action(
        name="moderate",
        form=Moderation,
        access=_moderators,
        changes=_status,
        description="For moderators: publish or hide it, with a reason, which the author is told by mail.",
        concerns="author_id",
        notice=_told_of(what, quoted),
        audited=True,
    )


def _is_unpublished(post: Mapping[str, Any] | None) -> bool:
    # A draft and an id that no post has count like a hidden one: a comment must not tell them apart.
    return post is None or post.get("status") != "published"


_AuthorId = Annotated[
    PydanticObjectId, References("users"), SetOnCreate(current_user), Field(description="The user who wrote it.")
]


class TagParameters(BaseModel):
    """What narrows the report of tags."""

    since: Annotated[dt.datetime | None, Field(description="Only posts created at this time or later.")] = None
    status: Annotated[PostStatus | None, Field(description="Only posts with this status.")] = None
    most: Annotated[int, Field(ge=1, le=1000, description="How many tags at most.")] = 50


class TagRow(BaseModel):
    """A tag, and the posts that have it."""

    tag: str
    posts: int
    newest: Annotated[
        dt.datetime | None, Field(description="When the newest of them was created; null where none says.")
    ]


_tags_report = Report(
    description="How many posts each tag has, the most used first.",
    parameters=TagParameters,
    output=TagRow,
    pipeline=[
        {"$match": {"created_at": {"$gte": Parameter("since")}, "status": Parameter("status")}},
        {"$unwind": "$tags"},
        {"$group": {"_id": "$tags", "posts": {"$sum": 1}, "newest": {"$max": "$created_at"}}},
        {"$sort": {"posts": -1, "_id": 1}},
        {"$limit": Parameter("most")},
        {"$project": {"_id": 0, "tag": "$_id", "posts": 1, "newest": 1}},
    ],
)


class Post(LiveDocument):
    """An article with a title, a text and a status."""

    title: Annotated[str, Field(min_length=1, max_length=200, description="The headline.")]
    slug: Annotated[
        str,
        Field(
            min_length=1,
            max_length=120,
            pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$",
            description="The post's unique name in addresses; made from the title when absent.",
            default_factory=lambda: secrets.token_hex(3),
        ),
    ]
    body: Annotated[str, Field(max_length=100_000, description="The text.")] = ""
    tags: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=40)]],
        Field(max_length=20, description="Words to find the post by."),
    ] = []
    status: Annotated[PostStatus, Field(description="draft, published or hidden.")] = PostStatus.DRAFT
    author_id: _AuthorId

    class Settings:
        name = "posts"
        indexes = [
            # Sparse: a post written by hand may lack a slug, and more than one may.
            IndexModel([("slug", 1)], name="slug_unique", unique=True, sparse=True),
            IndexModel([("status", 1), ("created_at", -1)], name="status_newest"),
            IndexModel([("author_id", 1), ("created_at", -1)], name="author_newest"),
        ]

    resource = Resource(
        access=_post_access,
        search=("title", "body"),
        reports={"tags": _tags_report},
        actions=(_moderate("post", "title"),),
        examples=(
            {
                "title": "High water in spring",
                "slug": "high-water-in-spring",
                "body": "The gauge stood at 3.4 m this morning.",
                "tags": ["river", "spring"],
                "status": "published",
            },
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _slug_from_title(cls, data: Any) -> Any:
        if isinstance(data, dict) and "slug" not in data and isinstance(data.get("title"), str):
            # The random end lets two posts have the same title.
            words = _NOT_SLUG.sub("-", data["title"].lower()).strip("-")[:100].rstrip("-")
            data = {**data, "slug": "-".join(filter(None, [words, secrets.token_hex(3)]))}
        return data


class Comment(LiveDocument):
    """What somebody says about a post."""

    post_id: Annotated[PydanticObjectId, References("posts"), Field(description="The post it belongs to.")]
    body: Annotated[str, Field(min_length=1, max_length=10_000, description="The text.")]
    status: Annotated[CommentStatus, Field(description="published or hidden.")] = CommentStatus.PUBLISHED
    author_id: _AuthorId
    post_hidden: Annotated[
        bool,
        DerivedFrom("post_id", _is_unpublished),
        VisibleTo("moderator", "admin"),
        Field(description="Whether readers do not see its post, which hides it too. Kept by the server."),
    ] = False

    class Settings:
        name = "comments"
        indexes = [
            IndexModel([("post_id", 1), ("created_at", 1)], name="post_oldest"),
            IndexModel([("author_id", 1), ("created_at", -1)], name="author_newest"),
        ]

    resource = Resource(
        access=_comment_access,
        search=("body",),
        actions=(_moderate("comment", "body"),),
        examples=({"post_id": "6b02c1e9c1e9111478612819", "body": "Ours is already over the lower path."},),
    )
