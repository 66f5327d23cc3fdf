"""Access rules: declared once on a class, compiled to the filter language for each principal.

A rule reads one document and the caller's id and roles: no joins, no clock. So a rule for a given principal *is* a
filter, and the same filter guards REST queries (as a MongoDB query) and live events (as a predicate).

Scopes narrow a principal who signed in with an API key: they take whole operations on a class away, and never add any.
`documents.resources.ResourceClass.rule` is the one place that does so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bson import ObjectId

from documents.errors import DeclarationError, FilterRefused
from documents.filters import (
    EVERYTHING,
    NOTHING,
    Compare,
    Filter,
    Operator,
    conjunction,
    disjunction,
    parse_filter,
)
from documents.shapes import Fields

#: The roles that exist. Rules that name another one are refused at start: a typing error must not lock a door open.
ROLES = ("user", "moderator", "admin")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking. `user_id` is None for an anonymous caller, who has no roles.

    `scopes` (`posts:read`, `posts:write`) are what an API key is good for; None: everything that the user may do.
    `key_id` is the API key's, where the user asks with one; rights do not hang on it.
    """

    user_id: ObjectId | None = None
    username: str | None = None
    roles: frozenset[str] = field(default_factory=frozenset)
    scopes: frozenset[str] | None = None
    key_id: ObjectId | None = field(default=None, compare=False)

    @property
    def signed_in(self) -> bool:
        """Whether the caller has proved who they are."""
        return self.user_id is not None

    @property
    def rights(self) -> tuple[ObjectId | None, frozenset[str], frozenset[str] | None]:
        """All that rules depend on: principals with equal rights may read and do the same."""
        return self.user_id, self.roles, self.scopes

    @property
    def author(self) -> str:
        """How `created_by` and `updated_by` name the caller: `user:` or `key:` and an id, or `anonymous`."""
        if self.key_id is not None:
            return f"key:{self.key_id}"
        return author_of(self.user_id)

    def within(self, scopes: frozenset[str] | None, key_id: ObjectId | None = None) -> Principal:
        """The same user, narrowed to `scopes` (None: not narrowed), with an API key where `key_id` is given."""
        return replace(self, scopes=scopes, key_id=key_id)

    def in_scope(self, operation: str, resource: str) -> bool:
        """Whether the scopes reach as far as `operation` on `resource`. To write includes to read."""
        if self.scopes is None or f"{resource}:write" in self.scopes:
            return True
        return operation == "read" and f"{resource}:read" in self.scopes


ANONYMOUS = Principal()

#: The author of what nobody asked for in particular, such as the first admin's account.
SYSTEM_AUTHOR = "system"


def author_of(user_id: ObjectId | None) -> str:
    """How `created_by` and `updated_by` name a user; None for somebody who is not signed in."""
    return "anonymous" if user_id is None else f"user:{user_id}"


class Rule:
    """Base of all rules. Combine rules with `&` and `|`."""

    def compile(self, principal: Principal, fields: Fields) -> Filter:
        """The filter that this rule is for `principal`. `fields` are all stored fields of the class."""
        raise NotImplementedError

    def __and__(self, other: Rule) -> Rule:
        return _All((self, other))

    def __or__(self, other: Rule) -> Rule:
        return _Any((self, other))


@dataclass(frozen=True, slots=True)
class _Constant(Rule):
    result: Filter

    def compile(self, principal: Principal, fields: Fields) -> Filter:  # noqa: ARG002 - the same for everybody
        return self.result


@dataclass(frozen=True, slots=True)
class _SignedIn(Rule):
    def compile(self, principal: Principal, fields: Fields) -> Filter:  # noqa: ARG002 - whatever the document is
        return EVERYTHING if principal.signed_in else NOTHING


@dataclass(frozen=True, slots=True)
class _Role(Rule):
    names: frozenset[str]

    def compile(self, principal: Principal, fields: Fields) -> Filter:  # noqa: ARG002 - whatever the document is
        return EVERYTHING if self.names & principal.roles else NOTHING


@dataclass(frozen=True, slots=True)
class _Owner(Rule):
    field: str

    def compile(self, principal: Principal, fields: Fields) -> Filter:
        if self.field not in fields:
            raise DeclarationError(f"owner({self.field!r}): there is no such field")
        # An anonymous caller's id is None, which equality would match with every document that lacks the field.
        return Compare(self.field, Operator.EQ, principal.user_id) if principal.signed_in else NOTHING


@dataclass(frozen=True, slots=True)
class _Where(Rule):
    condition: Mapping[str, Any]

    def compile(self, principal: Principal, fields: Fields) -> Filter:  # noqa: ARG002 - the same for everybody
        try:
            return parse_filter(self.condition, fields, loc=("where",))
        except FilterRefused as refused:
            raise DeclarationError(str(refused)) from None


@dataclass(frozen=True, slots=True)
class _All(Rule):
    rules: tuple[Rule, ...]

    def compile(self, principal: Principal, fields: Fields) -> Filter:
        return conjunction([rule.compile(principal, fields) for rule in self.rules])


@dataclass(frozen=True, slots=True)
class _Any(Rule):
    rules: tuple[Rule, ...]

    def compile(self, principal: Principal, fields: Fields) -> Filter:
        return disjunction([rule.compile(principal, fields) for rule in self.rules])


anyone: Rule = _Constant(EVERYTHING)
nobody: Rule = _Constant(NOTHING)
signed_in: Rule = _SignedIn()


def role(*names: str) -> Rule:
    """Callers with at least one of these roles. Raises DeclarationError for a role that does not exist."""
    if unknown := set(names) - set(ROLES):
        raise DeclarationError(f"role({', '.join(sorted(unknown))}): the roles are {', '.join(ROLES)}")
    return _Role(frozenset(names))


def owner(field: str) -> Rule:
    """The signed-in user whose id the document holds in `field`."""
    return _Owner(field)


def where(condition: Mapping[str, Any]) -> Rule:
    """Documents that match `condition`, written as a client would write a filter."""
    return _Where(condition)


@dataclass(frozen=True, slots=True)
class Access:
    """A class's rules; what is not named is refused to everybody.

    `create` must hold for the new document; `update` for the document before *and* after the write; `delete` for the
    document as it stands. Updating and deleting also need `read`: what a caller may not read is not there for them.
    """

    read: Rule = nobody
    create: Rule = nobody
    update: Rule = nobody
    delete: Rule = nobody
