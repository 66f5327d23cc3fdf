"""Rules: what they compile to for whom, and that a wrong one is found at start."""

from __future__ import annotations

from typing import Any

import pytest
from bson import ObjectId

from documents import (
    ANONYMOUS,
    EVERYTHING,
    Access,
    DeclarationError,
    LiveDocument,
    Principal,
    Registry,
    Resource,
    ResourceClass,
    anyone,
    nobody,
    owner,
    role,
    signed_in,
    where,
)
from documents.access import Rule
from documents.filters import NOTHING
from documents.models import Comment, Post
from tests.documents.classes import ADMIN, ANN, BOB, MODERATOR, Note


def resource_with(**rules: Rule) -> ResourceClass:
    class Thing(LiveDocument):
        """Something with an owner and a status."""

        owner_id: str | None = None
        status: str = ""

        class Settings:
            name = "things"

        resource = Resource(access=Access(**rules))

    return ResourceClass(Thing)


def test_an_anonymous_caller_owns_nothing() -> None:
    """No document is theirs, not even one that lacks the owner or holds null in its place."""
    things = resource_with(read=owner("owner_id"))
    assert things.rule("read", ANONYMOUS)[0] == NOTHING
    images: list[dict[str, Any]] = [{}, {"owner_id": None}, {"owner_id": []}, {"owner_id": "None"}]
    for image in images:
        assert not things.allows("read", ANONYMOUS, image)


def test_an_owner_is_told_by_id() -> None:
    """The id as an ObjectId, not its text, and nobody else's."""
    things = resource_with(read=owner("owner_id"))
    assert things.allows("read", ANN, {"owner_id": ANN.user_id})
    for image in ({"owner_id": str(ANN.user_id)}, {"owner_id": BOB.user_id}, {"owner_id": None}, {}):
        assert not things.allows("read", ANN, image)


def test_what_is_not_declared_is_refused_to_everybody() -> None:
    """An Access without rules lets nobody do anything."""
    things = resource_with()
    for operation in ("read", "create", "update", "delete"):
        assert things.rule(operation, ADMIN)[0] == NOTHING


def test_constants_and_roles() -> None:
    """Rules that do not look at the document compile to everything or nothing."""
    expected = {
        anyone: {ANONYMOUS, ANN, MODERATOR, ADMIN},
        nobody: set(),
        signed_in: {ANN, MODERATOR, ADMIN},
        role("moderator"): {MODERATOR},
        role("moderator", "admin"): {MODERATOR, ADMIN},
        signed_in & role("admin"): {ADMIN},
        nobody | role("user"): {ANN, MODERATOR, ADMIN},
    }
    for rule, allowed in expected.items():
        things = resource_with(read=rule)
        for principal in (ANONYMOUS, ANN, MODERATOR, ADMIN):
            assert things.rule("read", principal)[0] == (EVERYTHING if principal in allowed else NOTHING)


@pytest.mark.parametrize("resource", [ResourceClass(Post), ResourceClass(Comment)], ids=lambda r: r.name)
def test_who_does_what_with_posts_and_comments(resource: ResourceClass) -> None:
    """The table of the starter classes: everyone reads what is published, moderators do all."""
    author = ANN.user_id
    own = {"published": True, "draft": True, "hidden": False}
    for status, may_change in own.items():
        image = {"_id": ObjectId(), "author_id": author, "status": status}
        assert resource.allows("read", ANN, image)
        assert resource.allows("update", ANN, image) is may_change
        assert resource.allows("delete", ANN, image) is may_change
        for stranger in (BOB, ANONYMOUS):
            assert resource.allows("read", stranger, image) is (status == "published")
            assert not resource.allows("update", stranger, image)
            assert not resource.allows("delete", stranger, image)
        for operation in ("read", "create", "update", "delete"):
            assert resource.allows(operation, MODERATOR, image)
    assert not resource.allows("create", ANONYMOUS, {"status": "published"})
    assert not resource.allows("create", ANN, {"status": "hidden"})


SCOPES: dict[frozenset[str] | None, set[str]] = {
    None: {"read", "create", "update", "delete"},
    frozenset(): set(),
    frozenset({"other:write", "things", "things:", "things:READ", ":read", "thing:read", "*"}): set(),
    frozenset({"things:read"}): {"read"},
    frozenset({"things:write"}): {"read", "create", "update", "delete"},
    frozenset({"things:read", "things:write"}): {"read", "create", "update", "delete"},
}


@pytest.mark.parametrize("scopes", SCOPES, ids=lambda scopes: ",".join(sorted(scopes or ["all"])))
def test_scopes_narrow_every_operation(scopes: frozenset[str] | None) -> None:
    """To write includes to read; what no scope names is refused, whatever the rule, and in either order of asking."""
    things = resource_with(read=anyone, create=signed_in, update=role("admin"), delete=where({"status": "x"}))
    for principals in ((ADMIN, ADMIN.within(scopes)), (ADMIN.within(scopes), ADMIN)):
        for operation in ("read", "create", "update", "delete"):
            allowed = {p: things.allows(operation, p, {"status": "x"}) for p in principals}
            assert allowed[ADMIN]
            assert allowed[ADMIN.within(scopes)] is (operation in SCOPES[scopes])


def test_scopes_add_nothing() -> None:
    """A key of somebody who may not do it cannot either."""
    things = resource_with(read=owner("owner_id"), create=role("admin"))
    narrowed = ANN.within(frozenset({"things:write"}))
    assert things.rule("create", narrowed)[0] == NOTHING
    assert things.rule("read", narrowed)[0] == things.rule("read", ANN)[0]
    assert narrowed != ANN
    assert narrowed.rights != ANN.rights
    assert narrowed.within(None) == ANN


FAULTS: dict[str, tuple[dict[str, Rule], str]] = {
    "an owner field that is not there": ({"update": owner("nope")}, "update"),
    "a where on an unknown field": ({"read": where({"nope": 1})}, "read"),
    "a where with an unknown operator": ({"create": where({"status": {"$regex": "x"}})}, "create"),
    "a where of the wrong type": ({"delete": where({"status": 5})}, "delete"),
    "a fault in the second branch": ({"read": anyone | (signed_in & owner("nope"))}, "read"),
    "a fault behind nobody": ({"read": nobody & where({"nope": 1})}, "read"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_rule_is_found_at_start(case: str) -> None:
    """The error names the class and the operation."""
    rules, operation = FAULTS[case]
    with pytest.raises(DeclarationError, match=rf"^Thing\.resource\.access\.{operation}: "):
        resource_with(**rules)


def test_a_role_that_does_not_exist_is_found_where_it_is_written() -> None:
    """A typing error in a role must not lock a door open, nor shut."""
    with pytest.raises(DeclarationError, match="admn"):
        role("admn")


def test_rules_of_many_callers_stay_bounded_and_right() -> None:
    """The cache of compiled rules is emptied, and answers as before."""
    things = resource_with(read=owner("owner_id"))
    for _ in range(2_100):
        caller = Principal(ObjectId())
        assert things.allows("read", caller, {"owner_id": caller.user_id})
    assert things.allows("read", ANN, {"owner_id": ANN.user_id})
    assert not things.allows("read", BOB, {"owner_id": ANN.user_id})


def test_visible_and_writable_fields() -> None:
    """Hidden fields exist for nobody, those of a role for it alone, the server's are seen and not set."""
    notes = ResourceClass(Note)
    assert {"hush", "cost"} & set(notes.visible(ANN.roles)) == set()
    assert "cost" in notes.visible(ADMIN.roles)
    assert "hush" not in notes.visible(ADMIN.roles)
    assert {"checked", "owner_id", "_id", "revision"} <= set(notes.visible(frozenset()))
    assert set(notes.writable(ANN.roles)) == {"title", "slug", "score"}
    assert set(notes.writable(ADMIN.roles)) == {"title", "slug", "score", "cost"}


def test_two_classes_of_one_collection() -> None:
    """The second one is refused, and both are named."""
    with pytest.raises(DeclarationError, match=r"Note and Note both use"):
        Registry([Note, Note])


def test_modules_that_cannot_be_loaded() -> None:
    """A module that is not there is named; those that are there bring the account classes along."""
    with pytest.raises(DeclarationError, match="no_such_module"):
        Registry.load(["no_such_module"])
    names: set[Any] = {resource.name for resource in Registry.load(["documents.models"])}
    assert names == {"users", "sessions", "api_keys", "posts", "comments", "files"}
