"""Committed changes, as the change stream reports them.

An *entry* is what the feed carries: a `Change` of one document, a `Reset` where documents can no longer be
followed one by one, or a `Beat` that only moves the head. `entry_of` makes an entry from one event of
MongoDB's change stream; `documents.tailer` reads the events and gives them their positions.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bson import Timestamp

from documents.images import apply_update
from documents.positions import Position

HEARTBEATS: Final = "headwater_heartbeat"

#: What the server leaves out of the stream. It must never change with the document classes: positions count
#: the events of one cluster time, and every worker, old or new, has to count the same ones. Only writes to
#: documents are left out. A drop or rename always passes, because an internal collection can be renamed to a
#: live one.
PIPELINE: Final[tuple[Mapping[str, Any], ...]] = (
    {
        "$match": {
            "$nor": [
                {
                    "operationType": {"$in": ["insert", "update", "replace", "delete"]},
                    "$or": [
                        {"ns.coll": {"$regex": r"\.chunks$"}},
                        {"ns.coll": {"$regex": "^headwater_", "$ne": HEARTBEATS}},
                    ],
                }
            ]
        }
    },
)

#: Last stage where the server knows it (MongoDB >= 6.0.9). It cuts events above 16 MB into fragments, which
#: are joined again and count as one, so positions are the same with and without it.
SPLIT_STAGE: Final[Mapping[str, Any]] = {"$changeStreamSplitLargeEvent": {}}


class ChangeKind(enum.StrEnum):
    """What happened to the document."""

    INSERT = "insert"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"


class ResetReason(enum.StrEnum):
    """Why documents could not be followed one by one."""

    HISTORY_LOST = "history_lost"
    DROPPED = "dropped"
    RENAMED = "renamed"
    IMAGE_MISSING = "image_missing"
    UNPROCESSABLE = "unprocessable"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A position and the resume token that goes with it: everything up to the position has been read.

    The token is opaque; it is never decoded nor compared.
    """

    position: Position
    token: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change of one document of a live collection.

    `before` is None for an insert, `after` for a delete; both are as stored, and must not be modified,
    because neighbouring changes share parts of them. `size` is the event's size in bytes as the server sent
    it, for bounding what is kept. `at` is the server's clock (UTC, milliseconds).
    """

    position: Position
    token: Mapping[str, Any]
    at: dt.datetime
    size: int
    kind: ChangeKind
    collection: str
    document_id: Any
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @property
    def checkpoint(self) -> Checkpoint:
        """Where to resume after this entry."""
        return Checkpoint(self.position, self.token)


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget what you know of these collections (None: of all) and read them again.

    Its position is that of the event that caused it. Only `HISTORY_LOST` stands at ordinal 0: before
    everything at the first cluster time that is seen again.
    """

    position: Position
    token: Mapping[str, Any]
    at: dt.datetime
    collections: frozenset[str] | None
    reason: ResetReason

    @property
    def checkpoint(self) -> Checkpoint:
        """Where to resume after this entry."""
        return Checkpoint(self.position, self.token)


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat: the feed has everything up to here."""

    position: Position
    token: Mapping[str, Any]
    at: dt.datetime

    @property
    def checkpoint(self) -> Checkpoint:
        """Where to resume after this entry."""
        return Checkpoint(self.position, self.token)


Entry = Change | Reset | Beat


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event, or one fragment of an event, as the server sent it.

    `size` is in bytes. `fault` is set when its documents could not be decoded (a date beyond year 9999,
    broken UTF-8); `fields` then has only what was needed to place it.
    """

    fields: Mapping[str, Any]
    size: int
    fault: Exception | None = None


class ImageMissing(Exception):
    """The server did not keep the image before the change."""


def entry_of(event: ServerEvent, position: Position, token: Mapping[str, Any], live: Collection[str]) -> Entry | None:
    """The entry for one whole event, or None if it says nothing about a live collection.

    Raises ImageMissing if the image before is not there, and any other exception for an event that cannot be
    understood. Either way something happened to `affected_by(event, live)`.
    """
    fields = event.fields
    operation = fields["operationType"]
    namespace = fields.get("ns") or {}
    collection = namespace.get("coll")
    match operation:
        case "insert" | "update" | "replace" | "delete":
            if collection == HEARTBEATS:
                return Beat(position, token, wall_time(fields))
            if not isinstance(collection, str):
                raise ValueError(f"{operation} without a collection")
            if collection not in live:
                return None
            return _change_of(event, position, token, collection)
        case "drop" | "rename" | "dropDatabase":
            affected = affected_by(event, live)
            reason = ResetReason.RENAMED if operation == "rename" else ResetReason.DROPPED
            return Reset(position, token, wall_time(fields), affected, reason) if affected else None
        case _:
            # create, createIndexes, modify, shardCollection, invalidate and whatever a later server adds: no
            # document changes by them. They have a position all the same.
            return None


def affected_by(event: ServerEvent, live: Collection[str]) -> frozenset[str]:
    """The live collections that an event may have changed; all of them if it does not say."""
    names = set()
    for key in ("ns", "to"):
        namespace = event.fields.get(key)
        if isinstance(namespace, Mapping) and isinstance(namespace.get("coll"), str):
            names.add(namespace["coll"])
    return frozenset(names.intersection(live) if names else live)


def _change_of(event: ServerEvent, position: Position, token: Mapping[str, Any], collection: str) -> Change:
    if event.fault is not None:
        raise event.fault
    fields = event.fields
    kind = ChangeKind(fields["operationType"])
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    if kind is not ChangeKind.INSERT and (before := fields.get("fullDocumentBeforeChange")) is None:
        raise ImageMissing("no image before the change; is changeStreamPreAndPostImages enabled?")
    if kind is ChangeKind.UPDATE and before is not None:
        after = apply_update(before, fields["updateDescription"])
    elif kind is not ChangeKind.DELETE and (after := fields["fullDocument"]) is None:
        raise ValueError(f"{kind} without a document")
    return Change(
        position=position,
        token=token,
        at=wall_time(fields),
        size=event.size,
        kind=kind,
        collection=collection,
        document_id=fields["documentKey"]["_id"],
        before=before,
        after=after,
    )


def wall_time(fields: Mapping[str, Any]) -> dt.datetime:
    """When the server made the change, in UTC; from the cluster time (whole seconds) if it does not say."""
    at = fields.get("wallTime")
    if isinstance(at, dt.datetime):
        return at if at.tzinfo else at.replace(tzinfo=dt.UTC)
    cluster_time: Timestamp = fields["clusterTime"]
    return cluster_time.as_datetime()
