"""Declaring actions, and performing them under contention."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from documents import (
    Action,
    DeclarationError,
    DocumentRefused,
    Forbidden,
    LiveDocument,
    NotFound,
    Registry,
    Resource,
    owner,
    perform,
    where,
)
from documents.resources import ResourceClass
from tests.documents.classes import ADD, ANN, BOB, CORRECT, MODERATOR, SPOIL, World


def declared(*actions: Action) -> ResourceClass:
    """A class with these actions."""

    class Tally(LiveDocument):
        """What actions count in."""

        by_api: int = 0

        class Settings:
            name = "tallies"

        resource = Resource(actions=actions)

    return ResourceClass(Tally)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "update"}, "none of"),
        ({"name": "Bad-Name"}, "snake_case"),
        ({"name": ""}, "snake_case"),
        ({"form": BaseModel}, "derive from ActionForm"),
        ({"concerns": "owner_id"}, "not a field"),
        ({"access": owner("owner_id")}, "no such field"),
        ({"access": where({"nope": 1})}, "nope"),
    ],
)
def test_action_that_cannot_be_served(changes: dict[str, Any], message: str) -> None:
    """Is refused at the start, naming the class."""
    with pytest.raises(DeclarationError, match=message) as refused:
        declared(replace(ADD, **changes))
    assert "Tally" in str(refused.value)


def test_two_actions_of_one_name() -> None:
    """Are refused."""
    with pytest.raises(DeclarationError, match="same name"):
        declared(ADD, replace(CORRECT, name="add"))


async def test_rules_of_an_action(contract: World) -> None:
    """Those of the action and not of `update`; scopes take actions away."""
    counters, store = contract.registry["counters"], contract.store
    created = (await store.create(counters, ANN, {})).document["id"]
    reader = MODERATOR.within(frozenset({"counters:read"}))
    for principal in (ANN, reader):
        with pytest.raises(Forbidden):
            await perform(store, counters, CORRECT, created, principal, {"by": 1})
    writer = MODERATOR.within(frozenset({"counters:write"}))
    found, performed = await perform(store, counters, CORRECT, created, writer, {"by": 2})
    assert (found.document["by_api"], found.document["revision"]) == (2, 2)
    assert (performed.before["by_api"], performed.after["by_api"], performed.form.by) == (0, 2, 2)
    with pytest.raises(NotFound):
        await perform(store, counters, CORRECT, created, ANN.within(frozenset()), {"by": 1})


@pytest.mark.parametrize("body", [{}, {"by": "1"}, {"by": 11}, {"by": True}, {"by": 1, "x": 1}, [], None, "by"])
async def test_form_that_is_not_accepted(contract: World, body: Any) -> None:
    """Changes nothing."""
    counters = contract.registry["counters"]
    created = (await contract.store.create(counters, ANN, {})).document["id"]
    with pytest.raises(DocumentRefused):
        await perform(contract.store, counters, ADD, created, ANN, body)
    assert (await contract.store.get(counters, created, ANN)).document["by_api"] == 0


async def test_result_that_is_not_accepted(contract: World) -> None:
    """The whole document is validated after the action."""
    counters = contract.registry["counters"]
    created = (await contract.store.create(counters, ANN, {})).document["id"]
    with pytest.raises(DocumentRefused) as refused:
        await perform(contract.store, counters, SPOIL, created, ANN, {"by": 6})
    assert [fault.loc for fault in refused.value.faults] == [("body", "by_api")]
    assert (await contract.store.get(counters, created, ANN)).document["revision"] == 1


async def test_actions_and_other_writes_at_once(world: World) -> None:
    """None is lost: the action is computed again from what another writer left."""
    counters = world.registry["counters"]
    created = (await world.store.create(counters, ANN, {})).document["id"]
    raw = world.database.latest("counters")

    async def act() -> None:
        for _ in range(5):
            await perform(world.store, counters, ADD, created, BOB, {"by": 1})

    async def by_hand() -> None:
        for _ in range(10):
            await raw.update_one({}, {"$inc": {"by_hand": 1}})

    await asyncio.gather(*(act() for _ in range(4)), by_hand())
    found = await world.store.get(counters, created, ANN)
    assert (found.document["by_api"], found.document["by_hand"]) == (20, 10)


def test_actions_of_the_starter_classes() -> None:
    """Posts and comments are moderated by the same form."""
    registry = Registry.load(["documents.models"])
    assert {resource.name: list(resource.actions) for resource in registry if resource.actions} == {
        "posts": ["moderate"],
        "comments": ["moderate"],
    }
