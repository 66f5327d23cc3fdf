"""Ways to hear of one document live: on the WebSocket and in an event stream."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed

from tests.api.access.surfaces import Heard, by_id, probe
from tests.api.access.world import Persona, Subject, World
from tests.api.servers import Live, opened


@contextlib.contextmanager
def _subscribed(world: World, persona: Persona, subject: Subject) -> Iterator[tuple[Live, list[dict[str, Any]]]]:
    with opened(world.server, persona.token, key=persona.key) as connection:
        assert connection.receive()["type"] == "welcome"
        connection.send(
            type="subscribe", id="1", resource=subject.collection, filter=json.loads(by_id(subject)), sort=["id"]
        )
        yield connection, connection.receive_until("ready")


@probe("ws subscribe")
def snapshot(world: World, persona: Persona, subject: Subject) -> str:
    """The snapshot of a subscription."""
    try:
        with _subscribed(world, persona, subject) as (_, frames):
            return Heard([json.dumps(frames)]).outcome(subject)
    except ConnectionClosed as closed:
        return str(closed.rcvd.code if closed.rcvd else None)


@probe("event")
def event(world: World, persona: Persona, subject: Subject) -> str:
    """A change and the deletion, as the socket hears of them: both, or neither."""
    try:
        with _subscribed(world, persona, subject) as (connection, _):
            _touch_and_remove(world, subject)
            connection.send(type="ping", id="end", position=world.position())
            frames = connection.receive_until("pong")[:-1]
    except ConnectionClosed as closed:
        return str(closed.rcvd.code if closed.rcvd else None)
    finally:
        world.restore(subject)
    return _of_events([(frame["op"], frame) for frame in frames], subject)


def _of_events(events: list[tuple[str, dict[str, Any]]], subject: Subject) -> str:
    """The outcome of `update` and `delete`, of which somebody hears both or none."""
    outcome = Heard([json.dumps([content for _, content in events])]).outcome(subject)
    ops = [op for op, _ in events]
    assert ops == ([] if outcome == "empty" else ["update", "delete"]), ops
    return outcome


@probe("ws auth")
def signed_in_later(world: World, persona: Persona, subject: Subject) -> str:
    """A subscription made before signing in, and what it holds afterwards."""
    try:
        with opened(world.server) as connection:
            assert connection.receive()["type"] == "welcome"
            filter = json.loads(by_id(subject))
            connection.send(type="subscribe", id="1", resource=subject.collection, filter=filter)
            frames = connection.receive_until("ready")
            if (message := persona.auth_message) is not None:
                connection.send(**message)
                connection.receive_until("authenticated")
                connection.send(type="ping", id="end", position=world.position())
                frames += connection.receive_until("pong")
            return Heard([json.dumps(frames)]).outcome(subject)
    except ConnectionClosed as closed:
        return str(closed.rcvd.code if closed.rcvd else None)


@contextlib.contextmanager
def _streaming(
    persona: Persona, subject: Subject, *also: str
) -> Iterator[tuple[httpx.Response, Iterator[tuple[str, str]]]]:
    params = {"filter": json.dumps({"id": {"$in": [subject.id, *also]}})}
    headers = {"Accept": "text/event-stream"}
    with persona.client.stream("GET", subject.path, params=params, headers=headers) as answer:
        yield answer, _events_of(answer)


def _events_of(answer: httpx.Response) -> Iterator[tuple[str, str]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: ") and name != "position":
            yield name, line.removeprefix("data: ")


@probe("GET {c} text/event-stream")
def stream(_: World, persona: Persona, subject: Subject) -> str:
    """The snapshot of an event stream."""
    heard = Heard()
    with _streaming(persona, subject) as (answer, events):
        if answer.status_code != 200:
            answer.read()
            return heard.refused(heard.answer(answer), subject)
        for name, data in events:
            if name == "ready":
                return heard.outcome(subject)
            heard.text.append(data)
    raise AssertionError("the stream ended")


@probe("event over SSE")
def streamed_event(world: World, persona: Persona, subject: Subject) -> str:
    """A change and the deletion in an event stream, up to the next change of something that everybody hears of."""
    beacon = str(world.beacons[subject.collection]["_id"])
    with _streaming(persona, subject, beacon) as (answer, events):
        if answer.status_code != 200:
            answer.read()
            heard = Heard()
            return heard.refused(heard.answer(answer), subject)
        received: list[tuple[str, dict[str, Any]]] = []
        for name, data in events:
            content = json.loads(data)
            if name == "ready":
                _touch_and_remove(world, subject)
                world.signal(subject.collection)
            elif name not in ("snapshot",):
                if content["id"] == beacon:
                    break
                received.append((name, content))
        world.restore(subject)
    return _of_events(received, subject)


def _touch_and_remove(world: World, subject: Subject) -> None:
    world.touch(subject)
    world.remove(subject.collection, subject.id)
