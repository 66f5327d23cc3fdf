"""The demo: fills posts and comments with plausible data, and keeps changing them at a given rate.

It is a program of its own that writes to the server's database, by the same rules and validation as the API but past
the API itself: what a dashboard then shows has come by the change stream, as every other program's writes do.
It changes only what its own users wrote.
"""

from __future__ import annotations

import asyncio
import base64
import math
import random
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any

from documents import demo_text
from documents.access import SYSTEM_AUTHOR, Principal
from documents.accounts import Accounts
from documents.database import Database, driver_errors
from documents.demo_plan import CREATES, DELETES, Item, Plan, Step
from documents.errors import (
    Contended,
    DatabaseAway,
    DatabaseRefused,
    DeclarationError,
    Duplicate,
    Forbidden,
    InvalidInput,
    NotFound,
    Stale,
)
from documents.preconditions import NO_PRECONDITIONS, Preconditions
from documents.resources import Registry, ResourceClass
from documents.store import Store

AUTHORS = ("demo-river", "demo-gauge", "demo-heron", "demo-willow", "demo-otter")
MODERATOR = "demo-lockkeeper"

BODY_MOST = 4_000
REPORT_SECONDS = 5.0
RETRY_SECONDS = 0.5
#: A schedule that is further behind than this leaves changes out, instead of making them all in one burst later.
LATE_SECONDS = 1.0

#: What another writer's work may do to one change of ours: the change is left out and its document read anew.
_OVERTAKEN = (NotFound, Forbidden, Contended, Stale, Duplicate, InvalidInput)


class Pace:
    """When each change is due: at absolute times, so that the time that one takes does not delay the next.

    Times are in seconds of any one clock. `missed` counts the changes that were left out because they were late.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._interval = 1 / rate
        self._start = now
        self._tick = 0
        self.missed = 0

    @property
    def due(self) -> float:
        """When the next change is due."""
        return self._start + self._tick * self._interval

    def advance(self, now: float) -> None:
        """One change was made; it is `now`."""
        self._tick += 1
        if now - self.due > LATE_SECONDS:
            late = int((now - self.due) / self._interval)
            self._tick += late
            self.missed += late

    def stop(self, end: float) -> None:
        """Nothing more is made: what was due before `end` is missed."""
        self.missed += max(0, math.ceil((end - self.due) / self._interval))

    def restart(self, at: float) -> None:
        """The next change is due `at`, and nothing before that counts as missed."""
        self._start, self._tick = at, 0


class Demo:
    """Fills and changes the posts and comments of one database. The classes must be bound and installed before.

    `posts` is the number of posts to fill in and to stay near (within 5 %, or 2); each has about three comments.
    With the same `seed` and the same documents to begin with, texts and choices are the same.
    Raises DeclarationError when posts or comments are not registered.
    """

    def __init__(self, database: Database, registry: Registry, *, posts: int = 60, seed: int | None = None) -> None:
        self._posts = _registered(registry, "posts")
        self._comments = _registered(registry, "comments")
        self._database = database
        self._store = Store(database, registry)
        self._accounts = Accounts(database, registry)
        self._random = random.Random(seed)  # noqa: S311 - texts and choices, no secrets
        self._plan = Plan((), posts, self._random)
        self._moderator = Principal()
        self._seconds = self._away_seconds = 0.0
        #: How many changes of each kind were made, filling not included.
        self.done: Counter[Step] = Counter()
        #: Changes left out because another writer had changed or deleted the document.
        self.skipped = 0
        #: Changes left out because the database did not keep up with the rate.
        self.missed = 0

    async def fill(self) -> tuple[int, int]:
        """Register the demo's users, and write what is missing; returns how many posts and how many comments.

        Raises DatabaseAway, DatabaseRefused when a demo user may not do its part, and DocumentRefused.
        """
        self._plan.authors = [await self._user(name, "user") for name in AUTHORS]
        self._moderator = await self._user(MODERATOR, "moderator")
        await self._read()
        posts = self._plan.first_posts()
        for item in posts:
            await self._make(Step.WRITE_POST, item)
        comments = self._plan.first_comments()
        for item in comments:
            await self._make(Step.WRITE_COMMENT, item)
        return len(posts), len(comments)

    async def run(self, rate: float, *, seconds: float = 0, tell: Callable[[str], None] = lambda _: None) -> None:
        """After `fill`: make `rate` changes a second, for `seconds` (0: until cancelled).

        `tell` hears the counts every few seconds, and when the database goes away and comes back; in between, changes
        are tried until one succeeds. A cancellation leaves it to the database whether the change under way was made.
        """
        now = asyncio.get_running_loop().time
        started = reported = now()
        end = started + seconds if seconds else math.inf
        pace = Pace(rate, started)
        away_since: float | None = None
        try:
            while pace.due < end and now() < end:
                await asyncio.sleep(max(0.0, pace.due - now()))
                try:
                    await self.change()
                    if now() - reported >= REPORT_SECONDS:
                        reported = now()
                        await self._read()
                        tell(self._counts())
                except DatabaseAway:
                    if away_since is None:
                        away_since = now()
                        tell("The database does not answer; waiting for it.")
                    pace.restart(now() + RETRY_SECONDS)
                    continue
                if away_since is not None:
                    self._away_seconds += now() - away_since
                    away_since = None
                    tell("The database answers again.")
                    pace.restart(now())
                pace.advance(now())
            if away_since is None:
                pace.stop(end)
            await asyncio.sleep(max(0.0, end - now()))
        finally:
            self.missed += pace.missed
            self._seconds += now() - started
            self._away_seconds += now() - away_since if away_since is not None else 0

    async def change(self) -> Step | None:
        """Make one change; returns its kind, or None when another writer came in between. Raises DatabaseAway."""
        step, item = self._plan.choose()
        try:
            await self._make(step, item)
        except _OVERTAKEN:
            self.skipped += 1
            await self._read_again(item)
            return None
        self.done[step] += 1
        return step

    def summary(self) -> str:
        """All that was done, in one line."""
        parts = [f"Ran for {self._seconds:.1f} s: {self._counts()}."]
        if self.skipped:
            parts.append(f"{self.skipped} changes were overtaken by other writers and left out.")
        if self.missed:
            parts.append(f"The database did not keep up: {self.missed} changes were left out.")
        if self._away_seconds:
            parts.append(f"It did not answer for {self._away_seconds:.1f} s.")
        return " ".join(parts)

    def _counts(self) -> str:
        created = sum(self.done[step] for step in CREATES)
        deleted = sum(self.done[step] for step in DELETES)
        changed = self.done.total() - created - deleted
        sizes = f"{len(self._plan.posts)} posts, {len(self._plan.comments)} comments"
        return f"{created} created, {changed} changed, {deleted} deleted ({sizes})"

    async def _make(self, step: Step, item: Item) -> None:
        rng = self._random
        match step:
            case Step.WRITE_POST:
                text = {"title": demo_text.title(rng), "body": demo_text.body(rng), "tags": demo_text.tags(rng)}
                await self._write(self._posts, item, {**text, "status": item.status})
            case Step.WRITE_COMMENT:
                await self._write(self._comments, item, {"post_id": item.post_id, "body": demo_text.comment(rng)})
            case Step.EDIT_TITLE:
                await self._patch(item, item.author, {"title": demo_text.title(rng)})
            case Step.EDIT_BODY:
                await self._edit_body(item)
            case Step.EDIT_TAGS:
                await self._patch(item, item.author, {"tags": demo_text.tags(rng)})
            case Step.EDIT_COMMENT:
                await self._patch(item, item.author, {"body": demo_text.comment(rng)})
            case Step.PUBLISH:
                await self._patch(item, item.author, {"status": "published"})
            case Step.WITHDRAW:
                await self._patch(item, item.author, {"status": "draft"})
            case Step.HIDE_POST | Step.HIDE_COMMENT:
                await self._patch(item, self._moderator, {"status": "hidden"})
            case Step.SHOW_POST | Step.SHOW_COMMENT:
                await self._patch(item, self._moderator, {"status": "published"})
            case Step.DELETE_POST | Step.DELETE_COMMENT:
                # Only a moderator may delete what a moderator has hidden.
                by = self._moderator if item.status == "hidden" else item.author
                await self._store.delete(self._resource(item), item.id, by)
                self._plan.forget(item)

    async def _write(self, resource: ResourceClass, item: Item, values: dict[str, Any]) -> None:
        found = await self._store.create(resource, item.author, values)
        item.id = found.document["id"]
        self._plan.add(item)

    async def _patch(
        self, item: Item, by: Principal, patch: dict[str, Any], preconditions: Preconditions = NO_PRECONDITIONS
    ) -> None:
        found = await self._store.merge_patch(self._resource(item), item.id, by, patch, preconditions)
        item.status = found.document["status"]

    async def _edit_body(self, item: Item) -> None:
        found = await self._store.get(self._posts, item.id, item.author)
        longer = f"{found.document['body']}\n\n{demo_text.update(self._random)}"
        body = longer if len(longer) <= BODY_MOST else demo_text.body(self._random)
        # Only onto the text that was read: somebody who looks at the demo may be writing in it, too.
        await self._patch(item, item.author, {"body": body}, Preconditions(if_match=(found.etag,)))

    def _resource(self, item: Item) -> ResourceClass:
        return self._comments if item.post_id else self._posts

    async def _user(self, name: str, role: str) -> Principal:
        """The demo's user `name`, registered on the first run.

        Raises DatabaseRefused when there is such a user who may not do this. A role is never added: the name may
        be that of a person who was faster.
        """
        account = await self._accounts.find(name)
        if account is None:
            roles = sorted({"user", role}, reverse=True)
            try:
                await self._accounts.register(
                    name, f"{name}@example.org", _hash_of_no_password(), roles, author=SYSTEM_AUTHOR
                )
            except Duplicate as error:
                if "username" not in error.fields:
                    raise DatabaseRefused(f"the demo's user {name} cannot be registered: {error}") from None
            # Else another demo was faster.
            account = await self._accounts.find(name)
        if account is None or not account.is_active or role not in account.principal.roles:
            raise DatabaseRefused(f"the user {name} must be active and have the role `{role}` for the demo")
        return account.principal

    async def _read(self) -> None:
        """Learn which posts and comments of the demo there are, whoever changed them."""
        authors = {author.user_id: author for author in self._plan.authors}
        known: list[dict[str, Item]] = []
        for resource in (self._posts, self._comments):
            with driver_errors():
                found = (
                    self._database.collection(resource.name)
                    .find({"author_id": {"$in": list(authors)}}, projection={"author_id": 1, "status": 1, "post_id": 1})
                    .sort("_id")
                )
                items = [
                    Item(
                        str(stored["_id"]),
                        authors[stored["author_id"]],
                        str(stored.get("status")),
                        str(stored.get("post_id", "")),
                    )
                    async for stored in found
                ]
            known.append({item.id: item for item in items})
        self._plan.know(*known)

    async def _read_again(self, item: Item) -> None:
        if not item.id:
            return
        try:
            found = await self._store.get(self._resource(item), item.id, self._moderator)
        except NotFound:
            self._plan.forget(item)
        else:
            item.status = found.document["status"]


def _registered(registry: Registry, name: str) -> ResourceClass:
    if (resource := registry.get(name)) is None:
        raise DeclarationError(f"the demo writes {name}: HEADWATER_DOCUMENTS must name documents.models")
    return resource


def _hash_of_no_password() -> str:
    """An argon2id hash in the PHC string format that is of no password anybody knows: random bytes."""
    salt, digest = (base64.b64encode(secrets.token_bytes(size)).rstrip(b"=").decode() for size in (16, 32))
    return f"$argon2id$v=19$m=19456,t=2,p=1${salt}${digest}"
