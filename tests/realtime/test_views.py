"""What each change is to each view, and how it is written on the wire."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from documents import (
    ANONYMOUS,
    BY_ID,
    Change,
    ChangeKind,
    MemoryDatabase,
    Position,
    PositionCodec,
    Principal,
    Registry,
    Store,
    parse_filter,
)
from realtime import View, ViewIndex, ViewQuery, protocol
from realtime.frames import Frame, message_frame, snapshot_frame
from realtime.snapshots import encode_pages
from tests.realtime.worker import post, served_id

OWNER = ObjectId()
ME = Principal(OWNER, "me", frozenset({"user"}))
ADMIN = Principal(ObjectId(), "admin", frozenset({"admin"}))
AT = dt.datetime(2026, 5, 1, 12, 30, tzinfo=dt.UTC)


@pytest.fixture
def index() -> ViewIndex:
    """An index over the starter classes."""
    return make_index()


def make_index() -> ViewIndex:
    registry = Registry.load(["documents.models"])
    database = MemoryDatabase("test")
    database.id = "0123456789abcdef"
    return ViewIndex(Store(database, registry), PositionCodec(b"s" * 32, database.id))


def view_of(
    index: ViewIndex,
    filter: dict[str, Any],
    principal: Principal = ANONYMOUS,
    fields: tuple[str, ...] | None = None,
    resource: str = "posts",
) -> View:
    known = index._store.registry[resource]
    parsed = parse_filter(filter, known.visible(frozenset({"admin"})), loc=())
    return index.attach(ViewQuery(known, parsed, fields), principal)


def change(before: dict[str, Any] | None, after: dict[str, Any] | None, collection: str = "posts") -> Change:
    kind = ChangeKind.INSERT if before is None else ChangeKind.DELETE if after is None else ChangeKind.REPLACE
    id = (before or after or {})["_id"]
    return Change(Position(7 << 32 | 1, 1), {}, AT, 100, kind, collection, id, before, after)


def event(view: View, before: dict[str, Any] | None, after: dict[str, Any] | None) -> dict[str, Any] | None:
    frame = view.event(change(before, after, view.resource.name))
    return None if frame is None else protocol.Event.model_validate_json(frame.text).model_dump(exclude_none=True)


IN, ALSO_IN, OUT, NOT_MINE = (
    post(1),
    post(1, title="changed"),
    post(1, title="no more"),
    post(1, "draft"),
)
TABLE: list[tuple[dict[str, Any] | None, dict[str, Any] | None, str | None]] = [
    (None, IN, "create"),
    (None, OUT, None),
    (None, NOT_MINE, None),
    (IN, ALSO_IN, "update"),
    (IN, OUT, "leave"),
    (IN, NOT_MINE, "leave"),
    (OUT, IN, "enter"),
    (NOT_MINE, IN, "enter"),
    (OUT, NOT_MINE, None),
    (OUT, OUT | {"body": "x"}, None),
    (IN, None, "delete"),
    (OUT, None, None),
    (NOT_MINE, None, None),
    (IN, IN | {"revision": 2, "updated_at": AT}, None),
    (IN, IN | {"undeclared": "x"}, None),
    (IN | {"tags": [1]}, IN | {"tags": [True]}, "update"),
]


@pytest.mark.parametrize(("before", "after", "op"), TABLE)
def test_op_of_a_change(
    index: ViewIndex, before: dict[str, Any] | None, after: dict[str, Any] | None, op: str | None
) -> None:
    """The op follows from whether the image before and the image after match filter and rule."""
    view = view_of(index, {"title": {"$ne": "no more"}})
    found = event(view, before, after)
    assert (found and found["op"]) == op
    if found is not None:
        assert ("document" in found) is ("etag" in found) is (op not in ("leave", "delete"))
        assert ("changed" in found) is (op == "update")
        assert (found["id"], found["resource"], found["at"]) == (served_id(1), "posts", "2026-05-01T12:30:00.000Z")


def test_change_that_a_view_does_not_show(index: ViewIndex) -> None:
    """A view of some fields hears of no other, though they may move a document in and out of it."""
    view = view_of(index, {"body": ""}, fields=("title",))
    assert event(view, IN, IN | {"tags": ["x"]}) is None
    found = event(view, IN, ALSO_IN)
    assert found is not None
    assert found["changed"] == ["title"]
    # A number is no id of a post, and the mark is of what is shown.
    assert found["document"] == {"id": served_id(1), "title": "changed", "invalid": ["id"]}
    assert (event(view, IN, IN | {"body": "x"}) or {})["op"] == "leave"
    entered = event(view, IN | {"body": "x"}, IN) or {}
    assert entered["document"] == {"id": served_id(1), "title": "title 1", "invalid": ["id"]}


def test_field_that_appears_or_goes(index: ViewIndex) -> None:
    """Both are changes of it."""
    less = {name: value for name, value in IN.items() if name != "body"}
    view = view_of(index, {})
    for before, after in ((less, IN), (IN, less)):
        assert (event(view, before, after) or {})["changed"] == ["body"]


def test_fields_by_role(index: ViewIndex) -> None:
    """Each caller's form has the fields of their roles, and a hidden one is in nobody's."""
    stored = {"_id": OWNER, "username": "me", "email": "me@example.org", "password_hash": "SECRET", "roles": ["user"]}
    for principal, names in ((ME, {"id", "username"}), (ADMIN, {"id", "username", "email", "roles"})):
        view = view_of(index, {}, principal, resource="users")
        found = event(view, None, stored)
        assert found is not None
        assert set(found["document"]) == names
        assert event(view, stored, stored | {"password_hash": "ANOTHER"}) is None
    assert event(view_of(index, {}, ANONYMOUS, resource="users"), None, stored) is None


def test_identity_of_a_view(index: ViewIndex) -> None:
    """Equal content is the same view, whoever asks and however; anything else is another."""
    same = view_of(index, {"status": "published", "title": "a"})
    assert view_of(index, {"$and": [{"title": {"$eq": "a"}}, {"status": "published"}]}) is same
    moderators = [Principal(ObjectId(), name, frozenset({"moderator"})) for name in "ab"]
    assert view_of(index, {}, moderators[0]) is view_of(index, {}, moderators[1])
    assert view_of(index, {}, fields=("title", "body")) is view_of(index, {}, fields=("body", "title"))
    different = [
        same,
        view_of(index, {"title": "b"}),
        view_of(index, {"title": "b"}, ME),
        view_of(index, {"title": "b"}, Principal(ObjectId(), "b", frozenset({"user"}))),
        view_of(index, {"title": "b"}, ADMIN),
        view_of(index, {"title": "b"}, fields=("title",)),
        view_of(index, {"body": "b"}),
    ]
    assert len({view.id for view in different}) == len(different)


def test_name_of_a_view_in_another_process(index: ViewIndex) -> None:
    """It depends on content, and on nothing of a process: a client resumes on another worker and after a restart."""
    program = (
        "from tests.realtime.test_views import make_index, view_of\n"
        "index = make_index()\n"
        "print(*(view_of(index, {}, resource=name).id for name in ('posts', 'comments', 'users')))"
    )
    elsewhere = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent.parent,
        env={"PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = [view_of(index, {}, resource=name).id for name in ("posts", "comments", "users")]
    assert elsewhere.stdout.split() == here


def test_view_without_subscriptions_is_forgotten(index: ViewIndex) -> None:
    """The index holds what somebody subscribes to, and nothing else."""
    view = view_of(index, {})
    assert list(index.of_collection("posts")) == [view]
    index.release(view)
    index.release(view)
    assert len(index) == 0
    assert list(index.of_collection("posts")) == []
    assert list(index.of_collection("unheard_of")) == []


def test_query_that_other_rights_permit(index: ViewIndex) -> None:
    """Fields that the new rights hide may be neither filtered, sorted nor selected; `id` is `_id`."""
    users = index._store.registry["users"]
    filters: list[dict[str, Any]] = [
        {"email": "a@example.org"},
        {"$nor": [{"email": {"$exists": True}}]},
        {"$or": [{"username": "x"}, {"roles": {"$elemMatch": {"$eq": "admin"}}}]},
        {"email": {"$not": {"$gt": "a"}}},
    ]
    for filter in filters:
        query = ViewQuery(users, parse_filter(filter, users.visible(ADMIN.roles), loc=()))
        assert index.permits(query, BY_ID, ADMIN)
        assert not index.permits(query, BY_ID, ME)
    harmless = parse_filter({"username": {"$ne": "x"}, "id": {"$exists": True}}, users.visible(ME.roles), loc=())
    assert index.permits(ViewQuery(users, harmless, ("id", "username")), BY_ID, ME)
    assert not index.permits(ViewQuery(users, harmless, ("email",)), BY_ID, ME)


def test_snapshot_frame_is_a_message_of_the_protocol(index: ViewIndex) -> None:
    """Pages are written by hand; what they say is what the models say, text and all."""
    view = view_of(index, {})
    stored = [post(n, title='"quoted" \\ ü\u2028', body="x" * 50_000) for n in range(7)]
    pages = encode_pages(stored, view.form, view.select)
    assert len(pages) == 4  # two of 50 kB to a page of 128 KiB
    frames = [snapshot_frame(id='s"1', view=view.id, items=page, more=n < 3) for n, page in enumerate(pages)]
    read = [protocol.Snapshot.model_validate_json(frame.text) for frame in frames]
    assert [item.document["id"] for page in read for item in page.items] == [served_id(number) for number in range(7)]
    assert read[0].items[0].document["title"] == '"quoted" \\ ü\u2028'
    assert [(page.id, page.view, page.more) for page in read] == [
        ('s"1', view.id, more) for more in (True, True, True, False)
    ]
    assert encode_pages([], view.form, view.select) == ("[]",)
    etags = {item.etag for page in read for item in page.items}
    assert etags == {view.form.etag(view.form.document(document)) for document in stored}


def test_frames_as_server_sent_events(index: ViewIndex) -> None:
    """An event's id is what resuming needs; a frame without a position has none; `error` goes by another name."""
    view = view_of(index, {})
    frame = view.event(change(None, IN))
    assert frame is not None
    lines = frame.server_sent_event.split("\n")
    assert lines[0] == f"id: {view.id}@{frame.position}"
    assert lines[1] == "event: create"
    assert lines[2].removeprefix("data: ") == frame.text
    assert lines[3:] == ["", ""]
    page = snapshot_frame(id="1", view=view.id, items="[]", more=False)
    assert page.server_sent_event.startswith("event: snapshot\n")
    error = protocol.Error(code=protocol.ErrorCode.BAD_QUERY, message="two\nlines")
    assert message_frame(error).server_sent_event.startswith("event: problem\ndata: {")
    assert message_frame(error).server_sent_event.count("\n") == 3
    reset = protocol.Reset(view=view.id, reason=protocol.ResetReason.LAGGING)
    assert message_frame(reset).server_sent_event.startswith("id: @\nevent: reset\n")


def test_which_frames_claim_a_position() -> None:
    """A heartbeat does, and the answer to a ping that asked for one; a plain `pong` does not."""
    pong = protocol.Pong(id="1")
    assert message_frame(pong, position="00").claims_position
    assert not message_frame(pong).claims_position
    assert message_frame(protocol.PositionReached(position="00", as_of="")).claims_position
    assert not Frame("{}", "create", "v", "00").claims_position
