"""Frames: encoded messages on their way out. Encoded once, shared by every socket that gets them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from documents import encode_json, rfc3339
from realtime.protocol import Op, ServerMessage


@dataclass(frozen=True, slots=True)
class Frame:
    """One message as JSON text.

    `view` names the view it belongs to, None for messages of the connection. `position` is what a Server-Sent Event
    carries as its id, None where resuming is not possible. `event_name` is the event's name there. `committed_at` is
    when the change that an event tells of was committed (seconds since the epoch), None where its delay says nothing.
    """

    text: str
    event_name: str
    view: str | None = None
    position: str | None = None
    committed_at: float | None = None

    @property
    def size(self) -> int:
        """What the frame counts for in an outbox. Characters, which is close to bytes and costs nothing."""
        return len(self.text)

    @property
    def claims_position(self) -> bool:
        """Whether the frame tells the client that it has everything up to a position."""
        return self.event_name == "position" or (self.event_name == "pong" and self.position is not None)

    @property
    def server_sent_event(self) -> str:
        """The frame in the text/event-stream format (WHATWG HTML, 9.2.6)."""
        identity = f"id: {self.view}@{self.position}\n" if self.view and self.position else ""
        if self.event_name == "reset":
            # A browser keeps the last id until it hears another, and would come back with it to what it has forgotten.
            identity = "id: @\n"
        return f"{identity}event: {self.event_name}\ndata: {self.text}\n\n"


def message_frame(message: ServerMessage, *, view: str | None = None, position: str | None = None) -> Frame:
    """The frame of a message that goes to one connection."""
    content = message.model_dump(mode="json", exclude_none=message.type in ("error", "event"))
    return Frame(encode_json(content).decode(), _EVENT_NAMES.get(message.type, message.type), view, position)


#: An EventSource fires its own `error`, so ours has another name there.
_EVENT_NAMES = {"error": "problem"}


def event_frame(
    *,
    view: str,
    op: Op,
    resource: str,
    id: str,
    position: str,
    at: dt.datetime,
    document: Mapping[str, Any] | None = None,
    etag: str | None = None,
    changed: Sequence[str] | None = None,
) -> Frame:
    """The frame of an event. It names nothing that belongs to one connection, so all subscribers share it."""
    content: dict[str, Any] = {"type": "event", "view": view, "op": op.value, "resource": resource, "id": id}
    if document is not None:
        content |= {"document": document, "etag": etag}
    if changed is not None:
        content["changed"] = changed
    content |= {"position": position, "at": rfc3339(at)}
    return Frame(encode_json(content).decode(), op.value, view, position, at.timestamp())


def snapshot_frame(*, id: str, view: str, items: str, more: bool) -> Frame:
    """The frame of a page whose items were encoded once for all subscribers of the view."""
    head = encode_json({"type": "snapshot", "id": id, "view": view}).decode()[:-1]
    return Frame(f'{head},"items":{items},"more":{"true" if more else "false"}}}', "snapshot", view)
