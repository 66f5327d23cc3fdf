"""Distinct values and reports: what is computed by the database over the documents that a caller may read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pymongo.errors import OperationFailure

from documents.access import Principal
from documents.codec import decoded
from documents.database import Database, driver_errors
from documents.errors import DocumentsError, Fault, FilterRefused, InvalidInput
from documents.filters import Filter, conjunction, resolve, to_query
from documents.filters.paths import has_kind
from documents.filters.traversal import is_index
from documents.lists import QUERY_TIME_LIMIT_MS
from documents.pipelines import Report
from documents.positions import Position
from documents.public import encode_json, public_id, public_value
from documents.resources import ResourceClass
from documents.shapes import Fields, FieldType, Kind

logger = logging.getLogger("headwater.documents")

MAX_VALUES = 1_000
MAX_ROWS = 10_000
#: What an answer may grow to; beyond, it ends with `more`.
MAX_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DistinctField:
    """A field whose values can be told apart, by its stored path."""

    path: str


@dataclass(frozen=True, slots=True)
class Rows:
    """JSON-ready rows in order, whether there are more than were taken, and the position that they reflect at least."""

    items: list[Any]
    more: bool
    position: Position


def parse_distinct(path: str, visible: Fields) -> DistinctField:
    """The field that a public, dotted path names. Raises FilterRefused for one that the caller does not see."""
    scope = FieldType(Kind.OBJECT, fields={f.name: f for f in visible.values()})
    place = resolve(path, scope)
    if place is None:
        raise FilterRefused([Fault(("path", "field"), f"there is no field `{path}`", "unknown_field")])
    segments = path.split(".")
    for number in range(1, len(segments)):
        here = resolve(".".join(segments[:number]), scope)
        if here is not None and here.type.kind is Kind.ARRAY and is_index(segments[number]):
            raise FilterRefused([Fault(("path", "field"), "an index is not a field", "unknown_field")])
    if has_kind(place.type, Kind.OBJECT, Kind.MAP) or (
        place.type.item is not None and has_kind(place.type.item, Kind.OBJECT, Kind.MAP)
    ):
        raise FilterRefused([Fault(("path", "field"), f"`{path}` has no single values", "not_distinct")])
    return DistinctField(place.path)


class Aggregates:
    """Runs aggregations behind the read rule. Their results are bounded in rows, bytes and time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def distinct(
        self,
        resource: ResourceClass,
        field: DistinctField,
        filter: Filter,
        principal: Principal,
        *,
        limit: int,
        counted: bool,
    ) -> Rows:
        """The least `limit` values of the field in MongoDB's order, arrays taken apart; absent ones are none.

        Each is `{"value": …}`, with `counted` also `"count"`: how many readable documents that match have it.
        """
        rule, _ = resource.rule("read", principal)
        segments, value = field.path.split("."), f"${field.path}"
        # On a value that is no array, $unwind does nothing; what is absent, null or empty it drops. Each array on the
        # way is taken apart by itself, because the embedded server's paths do not lead through one.
        pipeline: list[dict[str, Any]] = [
            {"$match": to_query(conjunction([rule, filter]))},
            {"$project": {field.path: 1}},
            *({"$unwind": f"${'.'.join(segments[:number])}"} for number in range(1, len(segments) + 1)),
        ]
        if counted:
            # An array may hold a value twice, and then it is still one document.
            pipeline += [
                {"$group": {"_id": {"value": value, "id": "$_id"}}},
                {"$group": {"_id": "$_id.value", "count": {"$sum": 1}}},
            ]
        else:
            pipeline.append({"$group": {"_id": value}})
        pipeline += [{"$sort": {"_id": 1}}, {"$limit": limit + 1}]
        public = partial(public_id, kind=resource.id_kind) if field.path == "_id" else public_value

        def row(stored: Mapping[str, Any]) -> dict[str, Any]:
            value = {"value": public(stored.get("_id"))}
            return value | {"count": stored["count"]} if counted else value

        refusal = FilterRefused([Fault(("path", "field"), "too many values; narrow them by a filter", "too_many")])
        return await self._rows(resource, pipeline, limit, row, refusal)

    async def report(
        self, resource: ResourceClass, report: Report, arguments: Mapping[str, Any], principal: Principal
    ) -> Rows:
        """The rows of a declared report for `principal`. `arguments` are as `Report.arguments` gives them.

        Raises InvalidInput when the database cannot compute it, which depends on the arguments and the documents.
        """
        rule, _ = resource.rule("read", principal)
        pipeline = [
            {"$match": to_query(rule)},
            {"$project": _projection(resource.visible(principal.roles))},
            *report.stages(arguments),
            {"$limit": MAX_ROWS + 1},
        ]
        refusal = InvalidInput.at("query", msg="the report cannot be computed with these parameters", type="report")
        return await self._rows(resource, pipeline, MAX_ROWS, public_value, refusal)

    async def _rows(
        self,
        resource: ResourceClass,
        pipeline: Sequence[Mapping[str, Any]],
        limit: int,
        row: Callable[[Any], Any],
        refusal: DocumentsError,
    ) -> Rows:
        items: list[Any] = []
        size = 0
        more = False
        async with self._database.session() as session:
            try:
                with driver_errors():
                    cursor = self._database.readable(resource.name).aggregate(
                        list(pipeline), session=session, maxTimeMS=QUERY_TIME_LIMIT_MS, allowDiskUse=False
                    )
                    async for stored in cursor:
                        item = row(decoded(stored))
                        size += len(encode_json(item))
                        if len(items) == limit or (size > MAX_BYTES and items):
                            more = True
                            await cursor.close()
                            break
                        items.append(item)
            except OperationFailure as error:
                logger.warning("an aggregation of %s failed (error %s)", resource.name, error.code)
                raise refusal from None
            return Rows(items, more, self._database.position(session))


def _projection(fields: Fields, prefix: str = "") -> dict[str, int]:
    """What `$project` keeps: the declared fields, inside objects too."""
    kept: dict[str, int] = {}
    for name, field in fields.items():
        type_ = field.type.item if field.type.kind is Kind.ARRAY and field.type.item else field.type
        if type_.kind is Kind.OBJECT and type_.fields:
            kept |= _projection(type_.fields, f"{prefix}{name}.")
        else:
            kept[prefix + name] = 1
    return kept
