"""Tickets: good once, however many ask at the same moment, and not for long."""

from __future__ import annotations

import asyncio
import datetime as dt

from bson import ObjectId

from documents import Admission, Credential, Tickets
from documents.tickets import LIFETIME
from tests.documents.classes import World

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
SESSION = Admission(Credential("sessions", ObjectId(), ObjectId()), NOW + dt.timedelta(minutes=15))
KEY = Admission(Credential("api_keys", ObjectId(), ObjectId(), "0" * 64), None)


async def test_ticket_used_at_the_same_moment(contract: World) -> None:
    """Twenty uses by several processes: one gets what the ticket stands for, the others nothing."""
    processes = [Tickets(contract.database) for _ in range(4)]
    for admission in (SESSION, KEY):
        ticket = await processes[0].issue(admission)
        found = await asyncio.gather(*(processes[n % 4].redeem(ticket) for n in range(20)))
        assert [one for one in found if one is not None] == [admission]
        assert await processes[1].redeem(ticket) is None


async def test_ticket_that_comes_too_late(contract: World) -> None:
    """After 30 seconds it is nothing, although the database may still have it."""
    now = NOW
    tickets = Tickets(contract.database, clock=lambda: now)
    early, late = await tickets.issue(KEY), await tickets.issue(KEY)
    now = NOW + LIFETIME - dt.timedelta(milliseconds=1)
    assert await tickets.redeem(early) == KEY
    now = NOW + LIFETIME
    assert await tickets.redeem(late) is None


async def test_text_that_is_no_ticket(contract: World) -> None:
    """Neither invented ones nor what the database holds of a ticket."""
    tickets = Tickets(contract.database)
    ticket = await tickets.issue(KEY)
    stored = await contract.database.raw["headwater_tickets"].find_one({})
    assert stored is not None
    assert ticket not in str(stored)
    for text in ("", "\0", "\ud800", "$ne", "x" * 100_000, ticket[:-1], stored["_id"]):
        assert await tickets.redeem(text) is None
    assert await tickets.redeem(ticket) == KEY


async def test_index_that_removes_unused_tickets(world: World) -> None:
    """Named, and made again without harm."""
    tickets = Tickets(world.database)
    await tickets.install()
    await tickets.install()
    indexes = await world.database.raw["headwater_tickets"].index_information()
    assert indexes["expire_after_end"]["expireAfterSeconds"] == 0
