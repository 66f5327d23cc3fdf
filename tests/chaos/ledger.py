"""What clients were told, and whether it can all be true.

Three checks that need no knowledge of the server. A client's own: the frames follow the protocol, and each event fits
what the client holds. Between clients: two that follow the same view over the same stretch of positions were told the
same events, whichever workers told them. At the end: what each holds equals a fresh query.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Hexadecimal digits of a position without its signature.
POSITION_DIGITS = 24
#: They change without an event.
BOOKKEEPING = frozenset({"revision", "updated_at", "updated_by"})
FRAMES_KEPT = 12
FRAME_CHARACTERS = 400


@dataclass
class Stretch:
    """One unbroken time with a view: every event after `start` up to `end`, as this client was told."""

    view: str
    start: str
    end: str
    events: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Violation:
    """A broken promise: whose, which, and the frames around it."""

    who: str
    what: str
    frames: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.who}: {self.what}", *(f"    {frame}" for frame in self.frames)])


class Ledger:
    """All that was told to all clients."""

    def __init__(self, diary: Path | None = None) -> None:
        #: Where violations are written as they are noticed.
        self._diary = diary
        self.violations: list[Violation] = []
        self.deliveries = 0
        self.resets: Counter[str] = Counter()
        #: Connections of clients that read nothing, ended by the server.
        self.given_up = 0
        self.recovered = 0
        self.not_recovered = 0
        self.reconnects: Counter[str] = Counter()
        self.stretches: list[tuple[str, Stretch]] = []
        #: Views in which every change of their collection is to be seen.
        self.whole_views: set[str] = set()
        self._events: dict[str, dict[str, tuple[str, str]]] = {}

    def violate(self, who: str, what: str, frames: tuple[str, ...] = ()) -> None:
        """Note a violation."""
        violation = Violation(who, what, frames)
        self.violations.append(violation)
        if self._diary is not None:
            with self._diary.open("a") as diary:
                diary.write(f"{dt.datetime.now(dt.UTC):%H:%M:%S} {violation}\n")

    def told(self, who: str, view: str, position: str, op: str, id: str, frames: tuple[str, ...]) -> str:
        """Note an event of a view; the position, one object for all that hear of it."""
        self.deliveries += 1
        events = self._events.setdefault(view, {})
        known = events.get(position)
        if known is None:
            events[position] = (op, id)
        elif known != (op, id):
            self.violate(who, f"{position} of {view} is {(op, id)}, and was {known} to another client", frames)
        return position

    def events_of(self, stretch: Stretch) -> list[tuple[str, str, str]]:
        """What was told in a stretch: position, op and the document's id."""
        events = self._events.get(stretch.view, {})
        return [(position, *events[position]) for position in stretch.events]

    def compare(self) -> int:
        """Hold all stretches of each view against each other; answers how many were checked."""
        ordered = {view: sorted(events) for view, events in self._events.items()}
        for who, stretch in self.stretches:
            known = ordered.get(stretch.view, [])
            due = known[bisect_right(known, stretch.start) : bisect_right(known, stretch.end)]
            if due != stretch.events:
                told = set(stretch.events)
                lacking = [position for position in due if position not in told]
                self.violate(
                    who,
                    f"between {stretch.start} and {stretch.end} of {stretch.view} {len(lacking)} of {len(due)} events "
                    f"were told to others and not here, the first at {lacking[:1]}",
                )
        return len(self.stretches)


class Watched:
    """One subscription as a client holds it: what it holds, and where it stands.

    `since` is what a client sends to resume.
    """

    def __init__(self, who: str, ledger: Ledger, *, whole: bool = False) -> None:
        self.who = who
        #: Whether it is due every change of its collection.
        self.whole = whole
        self.documents: dict[str, dict[str, Any]] = {}
        self.view: str | None = None
        self.position: str | None = None
        self.ready = False
        #: Whether it was live at any time.
        self.lived = False
        self.complete = True
        #: Markers that were seen here.
        self.markers: set[str] = set()
        self.ledger = ledger
        self._named: str | None = None
        self._stretch: Stretch | None = None
        self._frames: deque[str] = deque(maxlen=FRAMES_KEPT)
        self._snapshot_open = False

    @property
    def since(self) -> dict[str, str] | None:
        """Where to resume; None for a fresh start."""
        return None if self.view is None or self.position is None else {"view": self.view, "position": self.position}

    def violate(self, what: str) -> None:
        """Note a violation of this subscription."""
        self.ledger.violate(self.who, what, tuple(self._frames))

    def forget(self) -> None:
        """All that the view held is void."""
        self._end_stretch()
        self.documents = {}
        self.view = self.position = None
        self.ready = self._snapshot_open = False

    def disconnected(self) -> None:
        """The connection has ended; what is known stays, except for half a snapshot."""
        self._frames.append("-- disconnected --")
        self.ready = False
        if self.position is None:
            self.forget()

    def hear(self, type: str, frame: dict[str, Any], text: str) -> None:
        """Apply a frame of this subscription."""
        self._frames.append(text[:FRAME_CHARACTERS])
        match type:
            case "subscribed":
                self._subscribed(frame)
            case "snapshot":
                self._page(frame)
            case "ready":
                self._ready(frame)
            case "event":
                self._event(frame)
            case "reset":
                self.ledger.resets[frame["reason"]] += 1
                self.forget()
            case "position":
                if self.ready:
                    self._reach(frame["position"])

    def is_named(self, view: str) -> bool:
        """Whether a frame of this view is about this subscription."""
        return view in (self.view, self._named)

    def _subscribed(self, frame: dict[str, Any]) -> None:
        self._named = frame["view"]
        if (frame["recovered"] is None) != (self.position is None):
            self.violate(f"recovered is {frame['recovered']}, and since was {self.position}")
        if frame["recovered"] is True:
            self.ledger.recovered += 1
            if frame["view"] != self.view:
                self.violate("another view was recovered")
        elif frame["recovered"] is False:
            self.ledger.not_recovered += 1

    def _page(self, frame: dict[str, Any]) -> None:
        if self.position is not None:
            self.violate("a snapshot without a reset")
            self.forget()
        if not self._snapshot_open:
            self.documents = {}
        self._snapshot_open, self._named = True, frame["view"]
        for item in frame["items"]:
            document = item["document"]
            if document["id"] in self.documents:
                self.violate(f"{document['id']} is twice in a snapshot")
            self.documents[document["id"]] = document
            self._mark(document)

    def _ready(self, frame: dict[str, Any]) -> None:
        position = frame["position"][:POSITION_DIGITS]
        if self.position is None:
            self.view, self.complete = frame["view"], frame["complete"]
            self._stretch = Stretch(frame["view"], position, position)
            if self.whole:
                self.ledger.whole_views.add(frame["view"])
        self._snapshot_open = False
        self._reach(frame["position"])
        self.ready = self.lived = True

    def _reach(self, position: str) -> None:
        """Everything up to `position` was told."""
        if self.position is not None and position < self.position:
            self.violate(f"went back from {self.position} to {position}")
        self.position = position
        if self._stretch is not None:
            self._stretch.end = position[:POSITION_DIGITS]

    def _event(self, frame: dict[str, Any]) -> None:
        if self._stretch is None or self.position is None or frame["view"] != self.view:
            self.violate("an event before ready, or of another view")
            return
        id, op, document = frame["id"], frame["op"], frame.get("document")
        if frame["position"] <= self.position:
            self.violate(f"an event at {frame['position']} after {self.position}")
        position = self.ledger.told(self.who, frame["view"], frame["position"][:POSITION_DIGITS], op, id, ())
        self._stretch.events.append(position)
        self._reach(frame["position"])
        held = self.documents.get(id)
        if self.complete and (held is not None) != (op in ("update", "leave", "delete")):
            self.violate(f"{op} of {id}, which is {'not ' * (held is None)}held")
        if document is None:
            self.documents.pop(id, None)
            return
        if held is not None and document.get("revision", 0) < held.get("revision", 0):
            self.violate(f"the revision of {id} went back from {held['revision']}")
        self.documents[id] = document
        self._mark(document)

    def _mark(self, document: dict[str, Any]) -> None:
        if document["id"].startswith("ffff"):
            self.markers.add(document["id"])

    def _end_stretch(self) -> None:
        if self._stretch is not None:
            self.ledger.stretches.append((self.who, self._stretch))
            self._stretch = None

    def finish(self, fresh: dict[str, dict[str, Any]]) -> None:
        """Hold what the client has against a fresh query, and end its stretch."""
        self._end_stretch()
        held = {id: _content(document) for id, document in self.documents.items()}
        due = {id: _content(document) for id, document in fresh.items()}
        if not self.complete:
            due = {id: document for id, document in due.items() if id in held}
        if held != due:
            wrong = sorted(id for id in held.keys() | due.keys() if held.get(id) != due.get(id))
            example = f"{wrong[0]} is {held.get(wrong[0])} and not {due.get(wrong[0])}"
            self.violate(f"{len(wrong)} of {len(due)} documents differ from a fresh query; {example}")


def _content(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in BOOKKEEPING}
