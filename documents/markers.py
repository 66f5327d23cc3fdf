"""Markers that a document class puts on its fields with `Annotated`.

They say who may see and who may set a field. The class's own fields can carry them, nested models' cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from documents.access import Principal


class Marker:
    """Base of all field markers."""


@dataclass(frozen=True, slots=True)
class Hidden(Marker):
    """Never leaves the server and cannot be set, filtered, sorted or selected by any client."""


@dataclass(frozen=True, slots=True)
class ReadOnly(Marker):
    """Clients see the field but only the server sets it."""


@dataclass(frozen=True, slots=True)
class DerivedFrom(ReadOnly):
    """The server keeps the field equal to `compute(document)` of the document that the field `reference` names.

    So a rule, which reads one document, can hang on another one. `compute` is pure and gets any stored document, also
    one that breaks the rules of its class, or None where there is none when the reference is written. Where nothing is
    referred to, the field has its default, which it needs.
    """

    reference: str
    compute: Callable[[Mapping[str, Any] | None], Any]


@dataclass(frozen=True, slots=True)
class SetOnCreate(Marker):
    """The server sets the field when the document is created; afterwards it is read-only.

    `value` receives the creating principal.
    """

    value: Callable[[Principal], Any]


@dataclass(frozen=True, slots=True, init=False)
class VisibleTo(Marker):
    """Only users with one of these roles see the field or may set it."""

    roles: frozenset[str]

    def __init__(self, *roles: str) -> None:
        object.__setattr__(self, "roles", frozenset(roles))


@dataclass(frozen=True, slots=True)
class References(Marker):
    """The field holds the `_id` of a document of this resource (a plain ObjectId, no DBRef)."""

    resource: str


def current_user(principal: Principal) -> Any:
    """For `SetOnCreate`: the id of the user who creates the document, or None for an anonymous one."""
    return principal.user_id
