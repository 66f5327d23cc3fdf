"""The demo: what it fills in, how it changes it, and what it leaves alone."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerifyMismatchError

from documents import demo_text
from documents.access import Principal
from documents.accounts import Accounts
from documents.database import Database, MongoDatabase
from documents.demo import AUTHORS, MODERATOR, Demo, Pace
from documents.demo_plan import COMMENTS_PER_POST, Item, Plan, Step
from documents.embedded import EmbeddedDatabase
from documents.errors import DatabaseRefused, DeclarationError
from documents.opening import bind_classes, open_database
from documents.resources import Registry
from documents.schema import install
from documents.store import Store

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
def registry() -> Registry:
    """The starter classes."""
    return Registry.load(["documents.models"])


@pytest.fixture
async def opened(mongodb_url: str, database_name: str, registry: Registry) -> AsyncIterator[Database]:
    """An installed database on the real server, as a running Headwater leaves it."""
    database = await open_database(mongodb_url, database_name)
    assert isinstance(database, MongoDatabase)
    await bind_classes(database, registry)
    await install(database, registry, "error")
    yield database
    await database.client.drop_database(database_name)
    await database.close()


async def stored(database: Database, name: str) -> list[dict[str, Any]]:
    """All documents of a collection, oldest first."""
    return await database.collection(name).find().sort("_id").to_list(None)


async def test_first_and_second_filling(opened: Database, registry: Registry) -> None:
    """The first run writes as many posts as are wanted and their comments, a second one only what is missing."""
    assert await Demo(opened, registry, posts=8, seed=1).fill() == (8, 8 * COMMENTS_PER_POST)
    first = await stored(opened, "posts"), await stored(opened, "comments"), await stored(opened, "users")
    assert await Demo(opened, registry, posts=8, seed=2).fill() == (0, 0)
    assert (await stored(opened, "posts"), await stored(opened, "comments"), await stored(opened, "users")) == first
    assert await Demo(opened, registry, posts=10, seed=3).fill() == (2, 2 * COMMENTS_PER_POST)
    posts, comments, users = first
    assert {user["username"] for user in users} == {*AUTHORS, MODERATOR}
    published = {post["_id"] for post in posts if post["status"] == "published"}
    assert {comment["post_id"] for comment in comments} <= published
    assert len({post["body"] for post in posts}) == len(posts)


async def test_many_changes(opened: Database, registry: Registry) -> None:
    """All kinds of changes occur, none breaks a rule, sizes stay, no comment loses its post, others' posts stay."""
    person = await Accounts(opened, registry).register("somebody", "somebody@example.org", "-")
    caller = Principal(person["_id"], "somebody", frozenset({"user"}))
    await Store(opened, registry).create(registry["posts"], caller, {"title": "Mine", "status": "published"})
    before = await stored(opened, "posts")
    demo = Demo(opened, registry, posts=20, seed=4)
    await demo.fill()
    done = Counter([await demo.change() for _ in range(700)])
    assert set(done) == set(Step)  # None would be among them if the validator or a rule had refused one
    posts, comments = await stored(opened, "posts"), await stored(opened, "comments")
    assert posts[:1] == before
    assert abs(len(posts) - 1 - 20) <= 2
    assert abs(len(comments) - 20 * COMMENTS_PER_POST) <= 20
    assert {comment["post_id"] for comment in comments} <= {post["_id"] for post in posts}
    assert Counter(post["status"] for post in posts)["published"] > len(posts) / 2
    assert max(post["revision"] for post in posts) > 3
    assert demo.skipped == demo.missed == 0
    assert sum(demo.done.values()) == 700


async def test_another_program_deletes_everything(opened: Database, registry: Registry) -> None:
    """Changes to documents that are gone are left out, and the demo writes new ones instead."""
    demo = Demo(opened, registry, posts=6, seed=5)
    await demo.fill()
    await opened.raw.posts.delete_many({})
    await opened.raw.comments.delete_many({})
    for _ in range(200):
        await demo.change()
    assert demo.skipped > 0
    assert f"{demo.skipped} changes were overtaken" in demo.summary()
    assert len(await stored(opened, "posts")) >= 4


async def test_another_program_hides_every_post(opened: Database, registry: Registry) -> None:
    """Posts that a real moderator has hidden are no longer edited; the demo learns it from the refusal."""
    demo = Demo(opened, registry, posts=6, seed=6)
    await demo.fill()
    await opened.raw.posts.update_many({}, {"$set": {"status": "hidden"}})
    edits = {Step.EDIT_TITLE, Step.EDIT_BODY, Step.EDIT_TAGS, Step.PUBLISH, Step.WITHDRAW}
    while demo.skipped < 3:
        await demo.change()
    assert demo.skipped == 3
    for _ in range(100):
        await demo.change()
    assert edits & set(demo.done)


async def test_user_with_the_moderators_name(opened: Database, registry: Registry) -> None:
    """Somebody who registered the moderator's name is not made a moderator; the demo says what is wrong."""
    await Accounts(opened, registry).register(MODERATOR, "somebody@example.org", "-")
    with pytest.raises(DatabaseRefused, match=MODERATOR):
        await Demo(opened, registry).fill()
    user = await opened.raw.users.find_one({"username": MODERATOR})
    assert user is not None
    assert user["roles"] == ["user"]
    assert await stored(opened, "posts") == []


async def test_signing_in_as_a_demo_user(opened: Database, registry: Registry) -> None:
    """The users' password hashes are well-formed, each its own, and of no password."""
    await Demo(opened, registry, posts=1).fill()
    hashes = [user["password_hash"] for user in await stored(opened, "users")]
    assert len(set(hashes)) == len(AUTHORS) + 1
    assert extract_parameters(hashes[0]).memory_cost >= 19 * 1024
    for password in ("", "demo", AUTHORS[0]):
        with pytest.raises(VerifyMismatchError):
            PasswordHasher().verify(hashes[0], password)


def test_classes_without_posts(registry: Registry) -> None:
    """Where posts are not registered the demo says which setting to change."""
    bare = Registry([registry["users"].document_class])
    with pytest.raises(DeclarationError, match="HEADWATER_DOCUMENTS"):
        Demo(None, bare)  # type: ignore[arg-type]  # the classes are looked at first


async def test_run_for_a_time(opened: Database, registry: Registry) -> None:
    """Each change that falls into the time is made or counted as missed, and the summary is one line."""
    demo = Demo(opened, registry, posts=3, seed=7)
    await demo.fill()
    await demo.run(16, seconds=0.5)
    assert sum(demo.done.values()) + demo.skipped + demo.missed == 8
    assert sum(demo.done.values()) > 0
    assert demo.summary().startswith("Ran for 0.5 s: ")
    assert "\n" not in demo.summary()


async def test_run_faster_than_the_database(opened: Database, registry: Registry) -> None:
    """A rate that no database keeps up with is not exceeded in time: what is missing is counted and told."""
    demo = Demo(opened, registry, posts=3, seed=7)
    await demo.fill()
    await demo.run(2**20, seconds=0.25)  # powers of two: due times are exact
    assert sum(demo.done.values()) + demo.skipped + demo.missed == 2**18
    assert f"The database did not keep up: {demo.missed} changes were left out." in demo.summary()


async def test_run_ends_by_cancellation(opened: Database, registry: Registry) -> None:
    """A run without an end stops when its task is cancelled, and can tell what it did."""
    demo = Demo(opened, registry, posts=3, seed=8)
    await demo.fill()
    counts: list[str] = []
    running = asyncio.create_task(demo.run(200, tell=counts.append))
    async with asyncio.timeout(60):
        while not counts:
            await asyncio.wait({running}, timeout=0.05)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert "created" in counts[0]
    assert sum(demo.done.values()) > 0


async def test_database_goes_away_and_comes_back(
    tmp_path: Path, free_port: Callable[[], int], registry: Registry, eventually: Eventually
) -> None:
    """It is told once that the database is away and once that it is back; then changes go on."""
    server = EmbeddedDatabase(tmp_path / "data", free_port(), durable=False)
    database = await open_database(await server.start(), "demo")
    lines: list[str] = []
    try:
        await bind_classes(database, registry)
        await install(database, registry, "error")
        demo = Demo(database, registry, posts=3, seed=9)
        await demo.fill()
        running = asyncio.create_task(
            demo.run(100, tell=lambda line: None if "created" in line else lines.append(line))
        )
        await eventually(lambda: sum(demo.done.values()) > 5)
        await server.stop()
        await eventually(lambda: lines)
        await server.start()
        await eventually(lambda: len(lines) == 2)
        made = sum(demo.done.values())
        await eventually(lambda: sum(demo.done.values()) > made + 5)
        running.cancel()
        await asyncio.wait({running})
        assert lines == ["The database does not answer; waiting for it.", "The database answers again."]
        assert "It did not answer for" in demo.summary()
    finally:
        await database.close()
        await server.stop()


def test_pace_of_a_database_that_keeps_up() -> None:
    """Due times are multiples of the interval, whatever single changes take."""
    pace = Pace(4, 100.0)
    due = []
    for took in (0.0, 0.2, 0.9, 0.0):
        due.append(pace.due)
        pace.advance(pace.due + took)
    assert due == [100.0, 100.25, 100.5, 100.75]
    assert pace.missed == 0


def test_pace_of_a_database_that_does_not_keep_up() -> None:
    """What is late by more than a second is left out and counted; a restart counts nothing."""
    pace = Pace(10, 0.0)
    pace.advance(2.1)
    assert pace.missed == 20
    assert pace.due == pytest.approx(2.1)
    pace.restart(50.0)
    assert pace.due == 50.0
    pace.advance(50.05)
    pace.stop(51.0)
    assert pace.missed == 29


def test_texts_of_one_seed() -> None:
    """The same seed gives the same texts; they vary in length, are filled in, and fit the classes."""

    def texts(seed: int) -> list[str]:
        rng = random.Random(seed)  # noqa: S311 - no secret
        made = [(demo_text.title(rng), demo_text.body(rng), demo_text.comment(rng)) for _ in range(300)]
        return [text for one in made for text in one]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)
    assert not any("{" in text or "}" in text for text in texts(1))
    assert all(text[0].isupper() or text[0].isdigit() for text in texts(1))
    lengths = [len(text) for text in texts(1)]
    assert max(lengths) > 20 * min(lengths)
    assert max(map(len, texts(1)[::3])) <= 200


def test_plan_of_one_seed() -> None:
    """The same seed and documents give the same choices, of which every kind is one."""

    def choices(seed: int) -> list[tuple[Step, str]]:
        author = Principal(None, "demo", frozenset({"user"}))
        plan = Plan([author], 40, random.Random(seed))  # noqa: S311 - no secret
        statuses = ("published", "draft", "hidden")
        posts = {str(n): Item(str(n), author, statuses[n % 3]) for n in range(40)}
        plan.know(posts, {f"c{n}": Item(f"c{n}", author, statuses[n % 2 * 2], str(n % 40)) for n in range(120)})
        made = []
        for _ in range(400):
            step, item = plan.choose()
            made.append((step, item.id))
            if step in (Step.DELETE_POST, Step.DELETE_COMMENT):
                plan.forget(item)
        return made

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)
    assert {step for step, _ in choices(1)} >= {Step.WRITE_POST, Step.WRITE_COMMENT, Step.DELETE_POST, Step.SHOW_POST}
