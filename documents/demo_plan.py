"""What the demo changes next: a mix that keeps the number of posts, comments, drafts and hidden ones near its size."""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence
from dataclasses import dataclass

from documents.access import Principal

COMMENTS_PER_POST = 3
DRAFT_SHARE = 0.15
HIDDEN_SHARE = 0.05


class Step(enum.StrEnum):
    """One kind of change."""

    WRITE_POST = "write post"
    EDIT_TITLE = "edit title"
    EDIT_BODY = "edit body"
    EDIT_TAGS = "edit tags"
    PUBLISH = "publish post"
    WITHDRAW = "back to draft"
    HIDE_POST = "hide post"
    SHOW_POST = "show post"
    DELETE_POST = "delete post"
    WRITE_COMMENT = "write comment"
    EDIT_COMMENT = "edit comment"
    HIDE_COMMENT = "hide comment"
    SHOW_COMMENT = "show comment"
    DELETE_COMMENT = "delete comment"


CREATES = frozenset({Step.WRITE_POST, Step.WRITE_COMMENT})
DELETES = frozenset({Step.DELETE_POST, Step.DELETE_COMMENT})

#: What a change may be about, how often, and its two directions: the first adds to a size that is kept (see
#: `Plan._grows`), the second takes away from it.
_MIX: dict[tuple[Step, Step], int] = {
    (Step.WRITE_POST, Step.DELETE_POST): 6,
    (Step.WRITE_COMMENT, Step.DELETE_COMMENT): 40,
    (Step.WITHDRAW, Step.PUBLISH): 12,
    (Step.HIDE_POST, Step.SHOW_POST): 5,
    (Step.HIDE_COMMENT, Step.SHOW_COMMENT): 4,
    (Step.EDIT_TITLE, Step.EDIT_TITLE): 10,
    (Step.EDIT_BODY, Step.EDIT_BODY): 18,
    (Step.EDIT_TAGS, Step.EDIT_TAGS): 8,
    (Step.EDIT_COMMENT, Step.EDIT_COMMENT): 8,
}


@dataclass(slots=True)
class Item:
    """A post or comment of the demo, as far as choosing needs it. No `id`: not written yet; no `post_id`: a post."""

    id: str
    author: Principal
    status: str
    post_id: str = ""


class Plan:
    """Chooses changes from the posts and comments that are there, each by id and oldest first.

    `size` is how many posts are wanted. All choices come from `rng`, so that the same seed makes the same plan.
    """

    def __init__(self, authors: Sequence[Principal], size: int, rng: random.Random) -> None:
        self.authors = authors
        self.size = size
        self.posts: dict[str, Item] = {}
        self.comments: dict[str, Item] = {}
        self._leaving: Item | None = None
        self._random = rng

    def know(self, posts: dict[str, Item], comments: dict[str, Item]) -> None:
        """What is there now."""
        self.posts, self.comments = posts, comments
        self._leaving = posts.get(self._leaving.id) if self._leaving is not None else None

    def add(self, item: Item) -> None:
        """`item` was written."""
        (self.comments if item.post_id else self.posts)[item.id] = item

    def forget(self, item: Item) -> None:
        """`item` is there no longer."""
        (self.comments if item.post_id else self.posts).pop(item.id, None)
        if self._leaving is item:
            self._leaving = None

    def first_posts(self) -> list[Item]:
        """The posts that are missing from the wanted number, most of them published."""
        missing = max(0, self.size - len(self.posts))
        return [self._new_post("draft" if self._random.random() < DRAFT_SHARE else "published") for _ in range(missing)]

    def first_comments(self) -> list[Item]:
        """The comments that are missing, on published posts."""
        missing = max(0, self.size * COMMENTS_PER_POST - len(self.comments))
        found = [self._new_comment() for _ in range(missing)]
        return [comment for comment in found if comment is not None]

    def choose(self) -> tuple[Step, Item]:
        """The next change and its document."""
        if self._leaving is None:
            pair = self._random.choices(list(_MIX), list(_MIX.values()))[0]
            step = pair[0] if self._grows(pair[0]) else pair[1]
            item = self._item(step)
            if item is None:  # so few are left that nothing fits
                return Step.WRITE_POST, self._new_post("draft")
            if step is not Step.DELETE_POST:
                return step, item
            self._leaving = item
        # A post goes after its comments, each as a change of its own, so that no comment is left without its post.
        comment = next((c for c in self.comments.values() if c.post_id == self._leaving.id), None)
        return (Step.DELETE_COMMENT, comment) if comment is not None else (Step.DELETE_POST, self._leaving)

    def _grows(self, step: Step) -> bool:
        """Whether to add one, and not to take one away. What `step` adds to stays within 5 % of its size, or 2."""
        match step:
            case Step.WRITE_POST:
                count, wanted = len(self.posts), float(self.size)
            case Step.WRITE_COMMENT:
                count, wanted = len(self.comments), float(self.size * COMMENTS_PER_POST)
            case Step.WITHDRAW:
                count, wanted = _count(self.posts, "draft"), self.size * DRAFT_SHARE
            case Step.HIDE_POST:
                count, wanted = _count(self.posts, "hidden"), self.size * HIDDEN_SHARE
            case Step.HIDE_COMMENT:
                count, wanted = _count(self.comments, "hidden"), self.size * HIDDEN_SHARE
            case _:
                return True
        slack = max(2.0, wanted / 20)
        return self._random.random() * 2 * slack < wanted + slack - count

    def _item(self, step: Step) -> Item | None:
        match step:
            case Step.WRITE_POST:
                return self._new_post("draft")
            case Step.WRITE_COMMENT:
                return self._new_comment()
            case Step.DELETE_POST:
                return self._old(self.posts)
            case Step.DELETE_COMMENT:
                return self._old(self.comments)
            case Step.EDIT_TITLE | Step.EDIT_BODY | Step.EDIT_TAGS:
                return self._any(self.posts, "published", "draft")
            case Step.WITHDRAW | Step.HIDE_POST:
                return self._any(self.posts, "published")
            case Step.PUBLISH:
                return self._any(self.posts, "draft")
            case Step.SHOW_POST:
                return self._any(self.posts, "hidden")
            case Step.EDIT_COMMENT | Step.HIDE_COMMENT:
                return self._any(self.comments, "published")
            case Step.SHOW_COMMENT:
                return self._any(self.comments, "hidden")

    def _new_post(self, status: str) -> Item:
        return Item("", self._random.choice(self.authors), status)

    def _new_comment(self) -> Item | None:
        post = self._any(self.posts, "published")
        return Item("", self._random.choice(self.authors), "published", post.id) if post is not None else None

    def _any(self, items: dict[str, Item], *statuses: str) -> Item | None:
        fitting = [item for item in items.values() if item.status in statuses]
        return self._random.choice(fitting) if fitting else None

    def _old(self, items: dict[str, Item]) -> Item | None:
        """One of the oldest third."""
        oldest = list(items.values())[: max(1, len(items) // 3)]
        return self._random.choice(oldest) if oldest else None


def _count(items: dict[str, Item], status: str) -> int:
    return sum(item.status == status for item in items.values())
