"""Query strings of lists and live lists: parsing and limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl

from api.bodies import decode_json
from documents import (
    BY_ID,
    EVERYTHING,
    MAX_VALUES,
    Count,
    Expansion,
    ExportQuery,
    Fault,
    Fields,
    Filter,
    FilterRefused,
    InvalidInput,
    ListQuery,
    Principal,
    Registry,
    ResourceClass,
    Sort,
    conjunction,
    parse_expand,
    parse_filter,
    parse_short,
    parse_sort,
    words_filter,
)
from realtime.protocol import DEFAULT_LIMIT

#: Parameter names that are not fields. They win over fields of the same name (which `filter` still reaches).
RESERVED = frozenset(
    {
        "filter",
        "search",
        "sort",
        "fields",
        "expand",
        "limit",
        "cursor",
        "page",
        "page_size",
        "count",
        "snapshot",
        "since",
    }
)
_LIVE_ONLY = frozenset({"snapshot", "since"})
DEFAULT_PAGE_SIZE = 25
MAX_PAGE = 1_000_000
MAX_EXPORT = 2**31 - 1

_T = TypeVar("_T")
_D = TypeVar("_D")
_ALL: Filter = EVERYTHING


@dataclass(frozen=True, slots=True)
class ListRequest:
    """A list as a client asks for it. `fields` are public names, None for all."""

    query: ListQuery
    fields: tuple[str, ...] | None
    expansion: Expansion


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """An export as a client asks for it. `fields` are public names, None for all."""

    query: ExportQuery
    fields: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class DistinctRequest:
    """Distinct values as a client asks for them."""

    filter: Filter
    limit: int
    counted: bool


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """A live list as a client asks for it. `since` is `view@position`, still to be verified."""

    filter: Filter
    sort: Sort
    fields: tuple[str, ...] | None
    limit: int
    snapshot: bool
    since: str | None


class _Parameters:
    """Collects the faults of all parameters, so that one answer names them all."""

    def __init__(self, items: Sequence[tuple[str, str]]) -> None:
        self.faults: list[Fault] = []
        self.reserved: dict[str, str] = {}
        self.short: list[tuple[str, str]] = []
        for name, value in items:
            if name not in RESERVED:
                self.short.append((name, value))
            elif name in self.reserved:
                self.faults.append(Fault(("query", name), "the parameter occurs twice", "repeated"))
            else:
                self.reserved[name] = value

    def get(self, name: str, parse: Callable[[str], _T], default: _D) -> _T | _D:
        """The parsed parameter; `default` when it is absent or faulty."""
        text = self.reserved.get(name)
        if text is None:
            return default
        try:
            return parse(text)
        except InvalidInput as error:
            self.faults.extend(error.faults)
        except ValueError as error:
            self.faults.append(Fault(("query", name), str(error), "value_error"))
        return default

    def filter(self, resource: ResourceClass, visible: Fields) -> Filter:
        """The conjunction of `filter`, `search` and all short forms."""
        parts: list[Filter] = [
            self.get(
                "filter",
                lambda text: parse_filter(_json(text, "filter"), visible, loc=("query", "filter")),
                _ALL,
            ),
            self.get("search", lambda text: words_filter(text, resource, visible), _ALL),
        ]
        try:
            parts.append(parse_short(self.short, visible))
        except FilterRefused as error:
            self.faults.extend(error.faults)
        return conjunction(parts)

    def fields(self, visible: Fields) -> tuple[str, ...] | None:
        """The selected fields."""
        text = self.reserved.get("fields")
        if text is None:
            return None
        try:
            return select_fields(_names(text), visible, loc=("query", "fields"))
        except FilterRefused as error:
            self.faults.extend(error.faults)
            return None

    def expansion(self, resource: ResourceClass, registry: Registry, principal: Principal) -> Expansion:
        """What to embed; nothing where nothing is asked for."""
        return self.get("expand", lambda text: parse_expand(_names(text), resource, registry, principal), ())

    def sort(self, visible: Fields) -> Sort:
        """The order, by id where none is asked for."""
        return self.get("sort", lambda text: parse_sort(_names(text), visible), BY_ID)

    def refuse(self, reason: str, *names: str) -> None:
        """Fault those of `names` that were given."""
        for name in names:
            if name in self.reserved:
                self.faults.append(Fault(("query", name), reason, "unexpected"))

    def finish(self) -> None:
        """Raise FilterRefused with all faults, if there are any."""
        if self.faults:
            raise FilterRefused(self.faults)


def select_fields(names: Sequence[str], visible: Fields, *, loc: tuple[str | int, ...]) -> tuple[str, ...]:
    """Selected fields by their public names. Raises FilterRefused for those that the caller cannot see."""
    public = {f.public for f in visible.values()}
    faults = [Fault(loc, f"there is no field `{name}`", "unknown_field") for name in names if name not in public]
    if faults or not names:
        raise FilterRefused(faults or [Fault(loc, "name at least one field", "too_short")])
    return tuple(dict.fromkeys(names))


def parse_list(
    resource: ResourceClass,
    registry: Registry,
    principal: Principal,
    items: Sequence[tuple[str, str]],
    *,
    page_size_max: int,
) -> ListRequest:
    """The query string of a list. Raises FilterRefused, naming every fault."""
    visible = resource.visible(principal.roles)
    parameters = _Parameters(items)
    parameters.refuse("only for Accept: text/event-stream", *_LIVE_ONLY)
    size = _whole(1, page_size_max)
    paged = "page" in parameters.reserved or "page_size" in parameters.reserved
    if paged:
        parameters.refuse("does not go with page and page_size", "cursor", "limit")
    default = min(DEFAULT_PAGE_SIZE, page_size_max)
    query = ListQuery(
        filter=parameters.filter(resource, visible),
        sort=parameters.sort(visible),
        limit=parameters.get("page_size" if paged else "limit", size, default),
        cursor=None if paged else parameters.reserved.get("cursor"),
        page=parameters.get("page", _whole(1, MAX_PAGE), 1) if paged else None,
        count=parameters.get("count", _count, "exact" if paged else "none"),
    )
    request = ListRequest(query, parameters.fields(visible), parameters.expansion(resource, registry, principal))
    parameters.finish()
    return request


def parse_selection(resource: ResourceClass, principal: Principal, items: Sequence[tuple[str, str]]) -> Filter:
    """The query string that says which documents to write. Raises FilterRefused, naming every fault."""
    parameters = _Parameters(items)
    parameters.refuse("not for writing all that match", *RESERVED - {"filter", "search"})
    filter = parameters.filter(resource, resource.visible(principal.roles))
    parameters.finish()
    return filter


def parse_one(
    resource: ResourceClass, registry: Registry, principal: Principal, items: Sequence[tuple[str, str]]
) -> Expansion:
    """The query string of one document: what to embed. Raises FilterRefused."""
    parameters = _Parameters([(name, value) for name, value in items if name == "expand"])
    expansion = parameters.expansion(resource, registry, principal)
    parameters.finish()
    return expansion


def parse_distinct_query(
    resource: ResourceClass, principal: Principal, items: Sequence[tuple[str, str]]
) -> DistinctRequest:
    """The query string of distinct values. Raises FilterRefused, naming every fault."""
    visible = resource.visible(principal.roles)
    parameters = _Parameters(items)
    parameters.refuse("not for distinct values", *RESERVED - {"filter", "search", "limit", "count"})
    request = DistinctRequest(
        filter=parameters.filter(resource, visible),
        limit=parameters.get("limit", _whole(1, MAX_VALUES), MAX_VALUES),
        counted=parameters.get("count", _counted, False),
    )
    parameters.finish()
    return request


def parse_export(resource: ResourceClass, principal: Principal, items: Sequence[tuple[str, str]]) -> ExportRequest:
    """The query string of an export, which is the whole and has no pages. Raises FilterRefused, naming every fault."""
    visible = resource.visible(principal.roles)
    parameters = _Parameters(items)
    parameters.refuse("only for Accept: text/event-stream", *_LIVE_ONLY)
    parameters.refuse("not for an export", "cursor", "page", "page_size", "count", "expand")
    query = ExportQuery(
        filter=parameters.filter(resource, visible),
        sort=parameters.sort(visible),
        limit=parameters.get("limit", _whole(1, MAX_EXPORT), None),
    )
    request = ExportRequest(query, parameters.fields(visible))
    parameters.finish()
    return request


def parse_live(
    resource: ResourceClass,
    principal: Principal,
    items: Sequence[tuple[str, str]],
    last_event_id: str | None,
    *,
    snapshot_max: int,
) -> LiveRequest:
    """The query string of a live list. Raises FilterRefused, naming every fault."""
    visible = resource.visible(principal.roles)
    parameters = _Parameters(items)
    parameters.refuse("not for a live list", "cursor", "page", "page_size", "count", "expand")
    request = LiveRequest(
        filter=parameters.filter(resource, visible),
        sort=parameters.sort(visible),
        fields=parameters.fields(visible),
        limit=parameters.get("limit", _whole(1, snapshot_max), min(DEFAULT_LIMIT, snapshot_max)),
        snapshot=parameters.get("snapshot", _boolean, True),
        # A browser that reconnects by itself repeats the URL and adds the header, which then is the newer one.
        since=last_event_id or parameters.reserved.get("since"),
    )
    parameters.finish()
    return request


def query_items(raw: bytes) -> list[tuple[str, str]]:
    """The parameters of a raw query string, in order. Raises FilterRefused for one that is not UTF-8."""
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise FilterRefused.at("query", msg="the query string is not percent-encoded UTF-8", type="encoding") from None


def _json(text: str, name: str) -> Any:
    try:
        return decode_json(text, "query", name)
    except json.JSONDecodeError as error:
        raise FilterRefused.at("query", name, msg=f"not valid JSON: {error}", type="json_invalid") from None


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")] if text.strip() else []


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 12) or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most} is expected")
        return int(text)

    return parse


def _count(text: str) -> Count:
    if text not in ("none", "estimated", "exact"):
        raise ValueError("one of none, estimated, exact is expected")
    return cast("Count", text)


def _counted(text: str) -> bool:
    if text not in ("none", "exact"):
        raise ValueError("one of none, exact is expected")
    return text == "exact"


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false is expected")
    return text == "true"
