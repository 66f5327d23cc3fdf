"""Document classes and what Headwater derives from each: fields, rules per principal, forms, views of its content."""

from __future__ import annotations

import datetime as dt
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from beanie import Document
from pydantic import ConfigDict, Field
from pymongo import IndexModel

from documents.access import ROLES, Access, Principal, Rule
from documents.actions import Action
from documents.errors import DeclarationError
from documents.filters import NOTHING, DocumentTest, Filter, compile_predicate
from documents.markers import Hidden, Marker, ReadOnly, SetOnCreate, VisibleTo
from documents.shapes import Field as DocumentField
from documents.shapes import Fields, Kind, fields_of

if TYPE_CHECKING:
    from documents.pipelines import Report

#: Fields that every write of the API touches. A change of nothing else is no event, and they do not enter the ETag.
BOOKKEEPING = frozenset({"revision", "updated_at", "updated_by"})
#: What the server keeps of every document, as it follows the class's own fields.
KEPT_BY_SERVER = ("created_at", "created_by", "updated_at", "updated_by", "revision")
AUTHORSHIP = frozenset({"created_by", "updated_by"})
#: How the two name somebody; see `Principal.author`.
AUTHOR_PATTERN = "^((user|key):[0-9a-f]{24}|system|anonymous)$"

#: Members of answers that are no fields.
_OF_ANSWERS = {
    "expanded": "answers have referenced documents under this name",
    "invalid": "answers name the fields that break the rules under this name",
}

#: First path segments under /api/v1 that are not collections, and names that are never ids.
RESERVED_NAMES = frozenset({"auth", "ws", "schemas", "admin", "files", "api-keys"})
RESERVED_IDS = frozenset({"bulk", "distinct", "reports", "import"})

#: How long a text can be that is an id.
MAX_ID = 200

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_CACHED_PRINCIPALS = 2_000
#: What can stand in a URL.
_ID_KINDS = frozenset({Kind.OBJECT_ID, Kind.UUID, Kind.STRING, Kind.INTEGER})


@dataclass(frozen=True)
class Resource:
    """How a document class is served.

    `access` are its rules. `search` names the string fields that `search=` looks in. With `generic=False` the class
    has no routes of its own (users, sessions); it can still be subscribed to when `live` is true. `scopes` are what an
    API key can be good for here. `examples` are complete create bodies for the OpenAPI document. `reports` are
    aggregations, served under their names. `actions` are what else may be done to a document. `cache` keeps what was
    read in each worker's memory until the feed tells of a change: for what is read much more than it is written.
    With `conditional=True` a document is changed or deleted only under `If-Match`, by who has seen its present form.
    `authorship` says who sees `created_by` and `updated_by`: `VisibleTo(...)` or `Hidden()`. By default it is everybody
    who may read the document, but for classes that show a `SetOnCreate` field to some only: then the same.
    """

    access: Access = field(default_factory=Access)
    search: tuple[str, ...] = ()
    generic: bool = True
    live: bool = True
    scopes: tuple[Literal["read", "write"], ...] = ("read", "write")
    examples: tuple[Mapping[str, Any], ...] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    cache: bool = False
    conditional: bool = False
    authorship: VisibleTo | Hidden | None = None


def utc_now() -> dt.datetime:
    """The present in UTC, cut to the millisecond, as BSON stores it."""
    now = dt.datetime.now(dt.UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class LiveDocument(Document):
    """Base of all document classes that Headwater serves. Declare fields, `Settings.name` and `resource`."""

    # `resource` is configuration and not a field.
    model_config = ConfigDict(ignored_types=(Resource,), validate_default=True)

    created_at: Annotated[
        dt.datetime, ReadOnly(), Field(default_factory=utc_now, description="When the document was created.")
    ]
    created_by: Annotated[
        str | None,
        ReadOnly(),
        Field(
            pattern=AUTHOR_PATTERN,
            description="Who created the document: user:<id>, key:<id> of an API key, system or anonymous. "
            "Absent when it was not created by the API.",
        ),
    ] = None
    updated_at: Annotated[
        dt.datetime,
        ReadOnly(),
        Field(default_factory=utc_now, description="When the API last wrote the document."),
    ]
    updated_by: Annotated[
        str | None,
        ReadOnly(),
        Field(
            pattern=AUTHOR_PATTERN,
            description="Who last wrote the document through the API, as in created_by. "
            "Absent when another program has replaced it since.",
        ),
    ] = None
    revision: Annotated[int, ReadOnly(), Field(default=1, ge=1, description="Counts the API's writes of the document.")]

    resource = Resource()


class ResourceClass:
    """One registered document class. Built once at start by `Registry`; holds everything derived from the class.

    Raises DeclarationError when the class cannot be served as declared.
    """

    def __init__(self, document_class: type[LiveDocument]) -> None:
        self.document_class = document_class
        self.label = document_class.__name__
        self.name = _collection_name(document_class)
        self.declared: Resource = document_class.resource
        self.fields: Fields = _with_authorship(fields_of(document_class), self.declared)
        self.doc = (document_class.__doc__ or "").strip()
        self.actions = {action.name: action for action in self.declared.actions}
        self._compiled: dict[tuple[object, ...], tuple[Filter, DocumentTest]] = {}
        self._visible: dict[frozenset[str], Fields] = {}
        self._check()

    def _check(self) -> None:
        if self.fields["_id"].type.kind not in _ID_KINDS:
            raise DeclarationError(f"{self.label}.id: an id is one of {', '.join(sorted(_ID_KINDS))}")
        for path in self.declared.search:
            if path not in self.fields:
                raise DeclarationError(f"{self.label}: search names {path!r}, which is not a field")
        for name, reason in _OF_ANSWERS.items():
            if name in self.fields:
                raise DeclarationError(f"{self.label}.{name}: {reason}; choose another one")
        self._check_authorship()
        for name, report in self.declared.reports.items():
            try:
                report.check(name)
            except DeclarationError as error:
                raise DeclarationError(f"{self.label}: report {error}") from None
        for document_field in self.fields.values():
            for marker in document_field.markers:
                if isinstance(marker, VisibleTo) and (unknown := marker.roles - set(ROLES)):
                    raise DeclarationError(f"{self.label}.{document_field.name}: unknown role {sorted(unknown)[0]!r}")
        for action in self.declared.actions:
            action.check(self.label, self.fields)
        if len(self.actions) < len(self.declared.actions):
            raise DeclarationError(f"{self.label}.resource.actions: two actions have the same name")
        # Compiling each rule once for somebody with every role shows faults in all branches at start.
        everybody = Principal(user_id=None, roles=frozenset(ROLES))
        for operation in ("read", "create", "update", "delete", *self.actions):
            self.rule(operation, everybody)

    def _check_authorship(self) -> None:
        own = [c for c in self.document_class.__mro__ if c not in LiveDocument.__mro__]
        declared = {name for c in own for name in vars(c).get("__annotations__", {})}
        # Each field has an alias, which most often is its own name.
        aliases = {info.alias for name, info in self.document_class.model_fields.items() if info.alias != name}
        if taken := sorted(AUTHORSHIP & (declared | aliases)):
            msg = "the server keeps this field; choose another name, and say who sees it by `Resource(authorship=…)`"
            raise DeclarationError(f"{self.label}.{taken[0]}: {msg}")

    @property
    def id_kind(self) -> Kind:
        """The type that the class declares for its ids."""
        return self.fields["_id"].type.kind

    def visible(self, roles: frozenset[str]) -> Fields:
        """The fields that a caller with `roles` may see, keyed by stored name."""
        if (known := self._visible.get(roles)) is None:
            known = {name: f for name, f in self.fields.items() if _is_visible(f, roles)}
            if len(self._visible) > _CACHED_PRINCIPALS:
                self._visible.clear()
            self._visible[roles] = known
        return known

    def writable(self, roles: frozenset[str]) -> Fields:
        """The fields that a caller with `roles` may set."""
        return {name: f for name, f in self.visible(roles).items() if is_client_writable(f)}

    def rule(self, operation: str, principal: Principal) -> tuple[Filter, DocumentTest]:
        """The rule for `operation` as it stands for `principal`: filter and test.

        An operation is read, create, update, delete, or an action of the class. Nothing at all where the principal's
        scopes do not reach.
        """
        key = (operation, *principal.rights)
        if (known := self._compiled.get(key)) is None:
            action = self.actions.get(operation)
            rule: Rule = action.access if action is not None else getattr(self.declared.access, operation)
            try:
                compiled = rule.compile(principal, self.fields)
            except DeclarationError as error:
                raise DeclarationError(f"{self.label}.resource.access.{operation}: {error}") from None
            if not principal.in_scope(operation, self.name):
                compiled = NOTHING
            known = (compiled, compile_predicate(compiled))
            if len(self._compiled) > _CACHED_PRINCIPALS:
                self._compiled.clear()
            self._compiled[key] = known
        return known

    def may_ever(self, operation: str, principal: Principal) -> bool:
        """Whether there can be a document that `principal` may do `operation` to."""
        return self.rule(operation, principal)[0] != NOTHING

    def allows(self, operation: str, principal: Principal, image: Mapping[str, Any]) -> bool:
        """Whether `principal` may do `operation` to the document that `image` shows."""
        return self.rule(operation, principal)[1](image)

    @cached_property
    def indexes(self) -> list[IndexModel]:
        """The class's own indexes. Each must be named, so that an admin can tell what it is for."""
        declared = list(getattr(getattr(self.document_class, "Settings", None), "indexes", []))
        for index in declared:
            if not isinstance(index, IndexModel):
                raise DeclarationError(f"{self.label}: declare indexes as IndexModel([...], name=...)")
        return declared


def _with_authorship(fields: Fields, declared: Resource) -> Fields:
    """`fields` with `created_by` and `updated_by` shown to whom the class says.

    A class that hides who created its documents must not tell it by another field.
    """
    markers: tuple[Marker, ...]
    if declared.authorship is not None:
        markers = (declared.authorship,)
    else:
        creators = (f.markers for f in fields.values() if any(isinstance(m, SetOnCreate) for m in f.markers))
        markers = tuple(m for of_creator in creators for m in of_creator if isinstance(m, VisibleTo | Hidden))
    return {name: replace(f, markers=(*f.markers, *markers)) if name in AUTHORSHIP else f for name, f in fields.items()}


def _is_visible(document_field: DocumentField, roles: frozenset[str]) -> bool:
    for marker in document_field.markers:
        if isinstance(marker, Hidden):
            return False
        if isinstance(marker, VisibleTo) and not marker.roles & roles:
            return False
    return True


def is_client_writable(document_field: DocumentField) -> bool:
    """Whether any client may set the field at all."""
    return document_field.name != "_id" and not any(
        isinstance(marker, Hidden | ReadOnly | SetOnCreate) for marker in document_field.markers
    )


def _collection_name(document_class: type[LiveDocument]) -> str:
    name = getattr(getattr(document_class, "Settings", None), "name", None)
    if not isinstance(name, str):
        raise DeclarationError(f"{document_class.__name__}: Settings.name must give the collection's name")
    if not _NAME.fullmatch(name) or name.startswith(("system", "headwater_")):
        raise DeclarationError(f"{document_class.__name__}: the collection name {name!r} must be plural snake_case")
    if name in RESERVED_NAMES and document_class.resource.generic:
        raise DeclarationError(f"{document_class.__name__}: {name!r} is the name of a route; choose another one")
    return name


class Registry:
    """The document classes that this process serves, by collection name. Built once at start, then read only."""

    def __init__(self, classes: Iterable[type[LiveDocument]]) -> None:
        self._by_name: dict[str, ResourceClass] = {}
        for document_class in classes:
            resource = ResourceClass(document_class)
            if resource.name in self._by_name:
                other = self._by_name[resource.name].label
                raise DeclarationError(f"{resource.label} and {other} both use the collection {resource.name!r}")
            self._by_name[resource.name] = resource
        self.scopes = frozenset(
            f"{resource.name}:{scope}" for resource in self._by_name.values() for scope in resource.declared.scopes
        )
        """All scopes that an API key can have."""

    @classmethod
    def load(cls, modules: Iterable[str]) -> Registry:
        """Import `modules` and register every LiveDocument class that each of them defines or re-exports.

        Headwater's own classes (users, sessions, files, ...) are always part of it. Raises DeclarationError for a
        module that cannot be imported and for two classes of one collection.
        """
        found: dict[str, type[LiveDocument]] = {}
        for module_name in ("documents.models.accounts", "documents.models.files", *modules):
            try:
                module = importlib.import_module(module_name)
            except Exception as error:  # whatever a module does when it is imported
                reason = f"{type(error).__name__}: {error}"
                raise DeclarationError(f"HEADWATER_DOCUMENTS: cannot import {module_name!r} ({reason})") from error
            for value in vars(module).values():
                if isinstance(value, type) and issubclass(value, LiveDocument) and _is_concrete(value):
                    found[f"{value.__module__}.{value.__qualname__}"] = value
        return cls(found.values())

    def __iter__(self) -> Iterator[ResourceClass]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> ResourceClass | None:
        """The class of the collection `name`, or None."""
        return self._by_name.get(name)

    def __getitem__(self, name: str) -> ResourceClass:
        return self._by_name[name]


def _is_concrete(document_class: type[LiveDocument]) -> bool:
    return document_class is not LiveDocument and hasattr(getattr(document_class, "Settings", None), "name")


__all__ = [
    "BOOKKEEPING",
    "RESERVED_IDS",
    "RESERVED_NAMES",
    "LiveDocument",
    "Registry",
    "Resource",
    "ResourceClass",
    "is_client_writable",
    "utc_now",
]
