"""Sessions: rotation of refresh tokens, the window in which a spent one is answered, and what ends a session."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
from typing import Any

import pytest
from bson import ObjectId

from documents import Accounts, RefreshRefused, Renewal, Sessions, is_alive
from documents.sessions import MAX_SPENT, REUSE_WINDOW
from tests.documents.classes import World

LIFETIME = dt.timedelta(days=30)
SECRET = b"the secret of the server"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = dt.datetime(2031, 5, 1, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now

    def advance(self, by: dt.timedelta) -> None:
        """Go on by `by`."""
        self.now += by


class Family:
    """A user and their sessions, with the clock of these."""

    def __init__(self, world: World, user_id: ObjectId) -> None:
        self.world = world
        self.user_id = user_id
        self.clock = Clock()
        self.sessions = Sessions(world.database, world.registry, SECRET, LIFETIME, self.clock)

    async def stored(self, renewal: Renewal) -> dict[str, Any]:
        """The session's document."""
        document = await self.world.database.raw["sessions"].find_one({"_id": renewal.session_id})
        assert document is not None
        return document

    async def has_ended(self, renewal: Renewal) -> bool:
        """Whether the session was ended."""
        return (await self.stored(renewal)).get("ended_at") is not None

    async def is_refused(self, token: str) -> bool:
        """Whether a refresh with `token` is refused."""
        try:
            await self.sessions.refresh(token)
        except RefreshRefused:
            return True
        return False


@pytest.fixture
async def family(contract: World) -> Family:
    user = await Accounts(contract.database, contract.registry).register("ann", "ann@example.org", "hash")
    return Family(contract, user["_id"])


def respelled(token: str) -> str:
    """The same bytes in base64's other alphabet, or with its last bits changed."""
    return token.replace("-", "+").replace("_", "/") if set("-_") & set(token) else token + "="


async def test_tokens_that_this_server_did_not_make(family: Family) -> None:
    """They are refused, and end nobody's session: not even those that name one."""
    renewal = await family.sessions.start(family.user_id)
    decoded = base64.urlsafe_b64decode(renewal.refresh_token)
    foreign = Sessions(family.world.database, family.world.registry, b"another", LIFETIME, family.clock)
    invented = [
        "",
        "x",
        "\ud800",
        "ü" * 80,
        "A" * 80,
        "A" * 100_000,
        renewal.refresh_token[:-4],
        renewal.refresh_token + "AAAA",
        renewal.refresh_token + "\n",
        respelled(renewal.refresh_token),
        str(renewal.session_id),
        base64.urlsafe_b64encode(decoded[:12] + bytes(48)).decode(),
        base64.urlsafe_b64encode(bytes(12) + decoded[12:]).decode(),
        hashlib.sha256(renewal.refresh_token.encode()).hexdigest(),
        foreign._token(renewal.session_id, bytes(32)),
    ]
    for token in invented:
        assert await family.is_refused(token), token[:90]
        await family.sessions.end_by_token(token)
    assert not await family.has_ended(renewal)
    assert not await family.is_refused(renewal.refresh_token)


async def test_nothing_that_could_be_used_is_stored(family: Family) -> None:
    """Neither the token in force nor a spent one; their hashes are."""
    first = await family.sessions.start(family.user_id)
    second = await family.sessions.refresh(first.refresh_token)
    stored = await family.stored(first)
    assert stored["refresh_hash"] == hashlib.sha256(second.refresh_token.encode()).hexdigest()
    assert [spent["hash"] for spent in stored["spent_tokens"]] == [
        hashlib.sha256(first.refresh_token.encode()).hexdigest()
    ]
    assert first.refresh_token not in str(stored)
    assert second.refresh_token not in str(stored)
    assert stored["revision"] == 2


async def test_token_twice_within_the_window(family: Family) -> None:
    """Both get the same successor, which works; also when that one has been spent meanwhile."""
    first = await family.sessions.start(family.user_id)
    second = await family.sessions.refresh(first.refresh_token)
    family.clock.advance(REUSE_WINDOW / 2)
    assert await family.sessions.refresh(first.refresh_token) == second
    third = await family.sessions.refresh(second.refresh_token)
    assert third.refresh_token not in (first.refresh_token, second.refresh_token)
    assert await family.sessions.refresh(first.refresh_token) == second
    assert await family.sessions.refresh(second.refresh_token) == third
    assert not await family.has_ended(first)


async def test_window_counts_from_the_first_use(family: Family) -> None:
    """Using a token again does not keep it usable."""
    first = await family.sessions.start(family.user_id)
    await family.sessions.refresh(first.refresh_token)
    family.clock.advance(REUSE_WINDOW - dt.timedelta(milliseconds=1))
    assert not await family.is_refused(first.refresh_token)
    family.clock.advance(dt.timedelta(milliseconds=1))
    assert await family.is_refused(first.refresh_token)
    assert await family.has_ended(first)


@pytest.mark.parametrize("rotations", [1, 2, 5])
async def test_token_that_comes_back_later(family: Family, rotations: int) -> None:
    """However old it is: its session ends, and the token in force with it."""
    first = latest = await family.sessions.start(family.user_id)
    other = await family.sessions.start(family.user_id)
    for _ in range(rotations):
        latest = await family.sessions.refresh(latest.refresh_token)
        family.clock.advance(REUSE_WINDOW)
    assert await family.is_refused(first.refresh_token)
    assert await family.has_ended(first)
    assert await family.is_refused(latest.refresh_token)
    assert not await family.is_refused(other.refresh_token)


async def test_race_of_many_refreshes(family: Family) -> None:
    """One token used ten times at once, from two processes, gives one successor."""
    first = await family.sessions.start(family.user_id)
    other = Sessions(family.world.database, family.world.registry, SECRET, LIFETIME, family.clock)
    renewals = await asyncio.gather(
        *(process.refresh(first.refresh_token) for process in (family.sessions, other) for _ in range(5))
    )
    assert len({renewal.refresh_token for renewal in renewals}) == 1
    assert (await family.stored(first))["revision"] == 2
    assert not await family.is_refused(renewals[0].refresh_token)


async def test_race_of_a_refresh_and_the_end(family: Family) -> None:
    """Whichever is first, the session has ended afterwards and its tokens are refused."""
    first = await family.sessions.start(family.user_id)
    results = await asyncio.gather(
        family.sessions.refresh(first.refresh_token), family.sessions.end(first.session_id), return_exceptions=True
    )
    assert await family.has_ended(first)
    assert await family.is_refused(first.refresh_token)
    if isinstance(results[0], Renewal):
        assert await family.is_refused(results[0].refresh_token)
    else:
        assert isinstance(results[0], RefreshRefused)


async def test_who_refreshes_without_pause(family: Family) -> None:
    """The list of spent tokens stays short."""
    latest = await family.sessions.start(family.user_id)
    for _ in range(MAX_SPENT + 3):
        latest = await family.sessions.refresh(latest.refresh_token)
    assert len((await family.stored(latest))["spent_tokens"]) == MAX_SPENT
    family.clock.advance(REUSE_WINDOW)
    await family.sessions.refresh(latest.refresh_token)
    assert len((await family.stored(latest))["spent_tokens"]) == 1


async def test_end_of_its_time(family: Family) -> None:
    """A session is as long as it was at its start, however often it is refreshed."""
    first = await family.sessions.start(family.user_id)
    assert first.ends_at == family.clock.now + LIFETIME
    family.clock.advance(LIFETIME - dt.timedelta(seconds=1))
    second = await family.sessions.refresh(first.refresh_token)
    assert second.ends_at == first.ends_at
    family.clock.advance(dt.timedelta(seconds=1))
    assert await family.is_refused(second.refresh_token)
    assert not await family.has_ended(first)


@pytest.mark.parametrize("change", [{"is_active": False}, None])
async def test_user_who_may_not_sign_in(family: Family, change: dict[str, Any] | None) -> None:
    """Deactivated or gone: refused."""
    first = await family.sessions.start(family.user_id)
    users = family.world.database.raw["users"]
    await (users.delete_many({}) if change is None else users.update_one({}, {"$set": change}))
    assert await family.is_refused(first.refresh_token)


@pytest.mark.parametrize("spent", [None, "x", 5, [None, 7, "x", {}, {"hash": None, "at": 5}, {"hash": 5}]])
async def test_session_that_was_edited_into_something_else(family: Family, spent: Any) -> None:
    """In the database by hand: what is not understood counts for nothing."""
    first = await family.sessions.start(family.user_id)
    sessions = family.world.database.raw["sessions"]
    await sessions.update_one({}, {"$set": {"spent_tokens": spent}}, bypass_document_validation=True)
    second = await family.sessions.refresh(first.refresh_token)
    assert await family.sessions.refresh(first.refresh_token) == second
    for change in ({"refresh_hash": None}, {"refresh_hash": 5}, {"ends_at": None}, {"ends_at": "never"}):
        third = await family.sessions.start(family.user_id)
        await sessions.update_one({"_id": third.session_id}, {"$set": change}, bypass_document_validation=True)
        assert await family.is_refused(third.refresh_token)
        await family.sessions.end(third.session_id)
        assert not is_alive(await sessions.find_one({"_id": third.session_id}))


async def test_ending_by_any_token_of_the_family(family: Family) -> None:
    """The one in force or a spent one, once; the time stays that of the first end."""
    for spent in (True, False):
        first = await family.sessions.start(family.user_id)
        second = await family.sessions.refresh(first.refresh_token)
        await family.sessions.end_by_token((first if spent else second).refresh_token)
        ended_at = (await family.stored(first))["ended_at"]
        assert ended_at == family.clock.now
        family.clock.advance(dt.timedelta(seconds=1))
        await family.sessions.end(first.session_id)
        assert (await family.stored(first))["ended_at"] == ended_at


async def test_ending_all_sessions_of_a_user(family: Family) -> None:
    """All but the one that is kept; other users' stay."""
    kept, *others = [await family.sessions.start(family.user_id) for _ in range(3)]
    foreign = await family.sessions.start(ObjectId())
    await family.sessions.end_all(family.user_id, but=kept.session_id)
    assert [await family.has_ended(one) for one in (kept, foreign, *others)] == [False, False, True, True]
    await family.sessions.end_all(family.user_id)
    assert await family.has_ended(kept)
