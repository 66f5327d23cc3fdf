"""`created_by` and `updated_by`: who is named, by which writes, and who is told."""

from __future__ import annotations

import datetime as dt
import warnings
from typing import Annotated, Any

import pytest
from beanie import PydanticObjectId
from bson import ObjectId
from pydantic import Field

from documents import (
    ANONYMOUS,
    SYSTEM_AUTHOR,
    Accounts,
    DeclarationError,
    DocumentRefused,
    Hidden,
    LiveDocument,
    PatchKind,
    Principal,
    Resource,
    ResourceClass,
    Sessions,
    SetOnCreate,
    VisibleTo,
    current_user,
    forms_of,
    utc_now,
)
from documents.models import Post, User
from documents.resources import AUTHORSHIP
from tests.documents.classes import ADMIN, ANN, BOB, MODERATOR, OPEN, World

BY_KEY = ANN.within(frozenset({"counters:write"}), ObjectId())
NAMES = {"user": f"user:{ANN.user_id}", "key": f"key:{BY_KEY.key_id}", "anonymous": "anonymous"}


def names(document: dict[str, Any] | None) -> tuple[Any, Any]:
    """Who created and who last wrote a document."""
    assert document is not None
    return document.get("created_by"), document.get("updated_by")


@pytest.mark.parametrize("name", ["created_by", "updated_by"])
async def test_client_that_sets_them(contract: World, name: str) -> None:
    """They are the server's, like the revision."""
    counters = contract.registry["counters"]
    with pytest.raises(DocumentRefused) as refused:
        await contract.store.create(counters, ANN, {name: "system"})
    assert [(fault.loc, fault.type) for fault in refused.value.faults] == [(("body", name), "read_only")]


@pytest.mark.parametrize("who", [ANN, BY_KEY, ANONYMOUS], ids=NAMES)
async def test_author_of_a_document(contract: World, who: Any, request: pytest.FixtureRequest) -> None:
    """A user, an API key, or nobody who is signed in: by name, in the answer and as stored."""
    author = NAMES[request.node.callspec.id.split("-")[-1]]
    counters = contract.registry["counters"]
    made = await contract.store.create(counters, who, {})
    assert names(made.document) == (author, author)
    assert names(await contract.database.raw["counters"].find_one()) == (author, author)


async def test_who_changes_a_document(contract: World) -> None:
    """Every kind of write names its caller as the last one and leaves the first one as it was."""
    counters, store = contract.registry["counters"], contract.store
    id = (await store.create(counters, ANN, {})).document["id"]
    contents = {PatchKind.MERGE: {"by_api": 1}, PatchKind.OPERATORS: {"$inc": {"by_api": 1}}}
    contents[PatchKind.JSON] = [{"op": "test", "path": "/updated_by", "value": f"user:{BOB.user_id}"}]
    for kind, content in contents.items():
        patch = store.prepare(counters, BOB, kind, content)
        found = await store.patch(counters, id, BOB, patch)
        assert names(found.document) == (NAMES["user"], f"user:{BOB.user_id}")
    found, _ = await store.replace(counters, id, BY_KEY, {})
    assert names(found.document) == (NAMES["user"], NAMES["key"])
    found = await store.act(counters, "add", id, MODERATOR, lambda stored: {**stored, "by_api": 7})
    assert names(found.document) == (NAMES["user"], f"user:{MODERATOR.user_id}")


async def test_document_that_another_program_replaced(world: World) -> None:
    """It has no author until the API writes it again; what was no author's name is dropped."""
    counters, raw = world.registry["counters"], world.database.raw["counters"]
    id = ObjectId((await world.store.create(counters, ANN, {})).document["id"])
    await raw.replace_one({"_id": id}, {"by_hand": 1})
    found = await world.store.get(counters, str(id), ANN)
    assert found.document == {"id": str(id), "by_hand": 1}
    patched = await world.store.merge_patch(counters, str(id), BOB, {"by_api": 1})
    assert names(patched.document) == (None, f"user:{BOB.user_id}")
    await raw.update_one({"_id": id}, {"$set": {"created_by": "ann"}}, bypass_document_validation=True)
    assert (await world.store.get(counters, str(id), ANN)).document["invalid"] == ["created_by"]
    patched = await world.store.merge_patch(counters, str(id), ANN, {"by_api": 2})
    assert names(patched.document) == (None, NAMES["user"])


async def test_field_that_is_carried(world: World) -> None:
    """A comment that follows its post was written by nobody."""
    posts, comments = world.registry["posts"], world.registry["comments"]
    post = (await world.store.create(posts, ANN, {"title": "a", "status": "published"})).document["id"]
    await world.store.create(comments, BOB, {"post_id": post, "body": "b"})
    await world.store.merge_patch(posts, post, MODERATOR, {"status": "hidden"})
    stored = await world.database.raw["comments"].find_one()
    assert stored is not None
    assert stored["post_hidden"] is True
    assert names(stored) == (f"user:{BOB.user_id}",) * 2


async def test_accounts_and_sessions(world: World) -> None:
    """Who registers has created themselves; the system makes admins, and ends sessions."""
    accounts, raw = Accounts(world.database, world.registry), world.database.raw
    ann = await accounts.register("ann", "ann@example.org", "hash")
    await accounts.register("root", "root@example.org", "hash", author=SYSTEM_AUTHOR)
    own = f"user:{ann['_id']}"
    assert names(ann) == (own, own)
    assert names(await raw["users"].find_one({"username": "root"})) == ("system", "system")
    await raw["users"].update_one({"_id": ann["_id"]}, {"$set": {"updated_by": "system"}})
    assert await accounts.change_password(ann["_id"], "hash", "new")
    assert names(await accounts.user(Principal(ann["_id"]))) == (own, own)
    sessions = Sessions(world.database, world.registry, b"s", dt.timedelta(days=1), utc_now)
    begun = await sessions.start(ann["_id"])
    assert names(await raw["sessions"].find_one()) == (own, own)
    await sessions.end(begun.session_id)
    assert names(await raw["sessions"].find_one()) == (own, "system")


class Suggestion(LiveDocument):
    """Something that only admins know the author of."""

    text: str = ""
    author_id: Annotated[PydanticObjectId | None, SetOnCreate(current_user), VisibleTo("admin")] = None

    class Settings:
        name = "suggestions"

    resource = Resource(access=OPEN)


class Secret(Suggestion):
    """The same, told to nobody at all."""

    class Settings:
        name = "secrets"

    resource = Resource(access=OPEN, authorship=Hidden())


class Signed(LiveDocument):
    """A class that says itself who is told."""

    class Settings:
        name = "signed"

    resource = Resource(access=OPEN, authorship=VisibleTo("moderator"))


TOLD = {
    Suggestion: {"admin"},
    Secret: set(),
    Signed: {"moderator"},
}


@pytest.mark.parametrize("document_class", TOLD)
def test_who_is_told(document_class: type[LiveDocument]) -> None:
    """Those whom the class says, or who see its author anyway; for others the fields do not exist."""
    resource = ResourceClass(document_class)
    for principal in (ANONYMOUS, ANN, MODERATOR, ADMIN):
        told = bool(TOLD[document_class] & principal.roles)
        assert (resource.visible(principal.roles).keys() >= AUTHORSHIP) is told
        assert resource.visible(principal.roles).keys().isdisjoint(AUTHORSHIP) is not told
    shown = forms_of(resource).public.model_fields.keys()
    assert (shown >= AUTHORSHIP) is (document_class is not Secret)


def test_who_is_told_of_the_starter_classes() -> None:
    """Only admins are told who changed a user; everybody who reads a post, who wrote it."""
    users, posts = ResourceClass(User), ResourceClass(Post)
    assert users.visible(ANN.roles).keys().isdisjoint(AUTHORSHIP)
    assert users.visible(ADMIN.roles).keys() >= AUTHORSHIP
    assert posts.visible(frozenset()).keys() >= AUTHORSHIP


def _declaring(name: str, annotation: Any) -> type[LiveDocument]:
    class Thing(LiveDocument):
        __annotations__ = {name: annotation}

        class Settings:
            name = "things"

    return Thing


@pytest.mark.parametrize(
    ("name", "annotation", "said"),
    [
        ("created_by", str, "Thing.created_by: the server keeps this field"),
        ("updated_by", str, "Thing.updated_by: the server keeps this field"),
        ("maker", Annotated[str, Field(alias="created_by")], "Thing.created_by: the server keeps this field"),
        ("invalid", bool, "Thing.invalid: answers name the fields that break the rules under this name"),
        ("expanded", bool, "Thing.expanded: answers have referenced documents under this name"),
    ],
)
def test_name_that_is_taken(name: str, annotation: Any, said: str) -> None:
    """A class that declares it is refused at start, with a line that says why."""
    # Once Beanie has met a class of ours in this process, Pydantic warns of what it has set on `LiveDocument`, too.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f'Field name "{name}" .* shadows an attribute', UserWarning)
        declared = _declaring(name, annotation)
    with pytest.raises(DeclarationError, match=said):
        ResourceClass(declared)


def test_role_that_does_not_exist() -> None:
    """A typing error must not hide the authors from everybody."""

    class Mistaken(LiveDocument):
        """Says it wrongly."""

        class Settings:
            name = "mistaken"

        resource = Resource(authorship=VisibleTo("admni"))

    with pytest.raises(DeclarationError, match="unknown role 'admni'"):
        ResourceClass(Mistaken)
