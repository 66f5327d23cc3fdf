"""Entries of the feed as bytes, for the log that workers share.

One entry is one BSON document, so that every value comes back as it was, and a batch is documents in a row: BSON says
how long it is. Hidden fields (hashes of passwords and tokens) are left out: they do not leave the process.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import bson
from bson import Timestamp
from bson.errors import BSONError

from documents.changes import Beat, Change, ChangeKind, Entry, Reset, ResetReason
from documents.codec import CODEC, decode_all_stored
from documents.markers import Hidden
from documents.positions import Position
from documents.resources import Registry

_CHANGE, _RESET, _BEAT = "change", "reset", "beat"


class NotAnEntry(Exception):
    """The bytes were not written by an EntryCodec of this version."""


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry in its place in a log: `previous` is the position of the entry before it."""

    log: str
    previous: Position
    entry: Entry


class EntryCodec:
    """Writes and reads entries."""

    def __init__(self, registry: Registry) -> None:
        self._hidden = {
            resource.name: frozenset(
                name
                for name, field in resource.fields.items()
                if any(isinstance(marker, Hidden) for marker in field.markers)
            )
            for resource in registry
        }

    def encode(self, logged: Logged) -> bytes:
        """One entry as BSON."""
        entry = logged.entry
        content: dict[str, Any] = {
            "log": logged.log,
            "position": _plain(entry.position),
            "previous": _plain(logged.previous),
            "token": entry.token,
            "at": entry.at,
        }
        match entry:
            case Change():
                hidden = self._hidden.get(entry.collection, frozenset())
                content |= {
                    "type": _CHANGE,
                    "size": entry.size,
                    "kind": entry.kind.value,
                    "collection": entry.collection,
                    "id": entry.document_id,
                    "before": _without(entry.before, hidden),
                    "after": _without(entry.after, hidden),
                }
            case Reset():
                collections = None if entry.collections is None else sorted(entry.collections)
                content |= {"type": _RESET, "collections": collections, "reason": entry.reason.value}
            case Beat():
                content["type"] = _BEAT
        return bson.encode(content, codec_options=CODEC)

    def decode(self, data: bytes) -> Iterator[Logged]:
        """The entries that stand in `data`, in order. Raises NotAnEntry."""
        try:
            for content in decode_all_stored(data):
                yield Logged(content["log"], _position(content["previous"]), _entry(content))
        except (BSONError, KeyError, TypeError, ValueError) as error:
            raise NotAnEntry(f"{type(error).__name__}: {error}") from None


def _entry(content: Mapping[str, Any]) -> Entry:
    position, token, at = _position(content["position"]), content["token"], content["at"]
    if not isinstance(at, dt.datetime):
        raise TypeError("the time is not one")
    match content["type"]:
        case "change":
            return Change(
                position=position,
                token=token,
                at=at,
                size=content["size"],
                kind=ChangeKind(content["kind"]),
                collection=content["collection"],
                document_id=content["id"],
                before=content["before"],
                after=content["after"],
            )
        case "reset":
            names = content["collections"]
            collections = None if names is None else frozenset(names)
            return Reset(position, token, at, collections, ResetReason(content["reason"]))
        case "beat":
            return Beat(position, token, at)
        case other:
            raise ValueError(f"an entry of type {other!r}")


def _plain(position: Position) -> list[Any]:
    return [position.timestamp, position.ordinal]


def _position(value: Any) -> Position:
    timestamp, ordinal = value
    if not isinstance(timestamp, Timestamp):
        raise TypeError("a position without a cluster time")
    return Position.of(timestamp, ordinal)


def _without(image: dict[str, Any] | None, hidden: frozenset[str]) -> dict[str, Any] | None:
    if image is None or not hidden:
        return image
    return {name: value for name, value in image.items() if name not in hidden}
