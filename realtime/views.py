"""Views: live results, and the index that turns each change into each view's event."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from documents import (
    Change,
    DocumentTest,
    Fields,
    Filter,
    PositionCodec,
    Principal,
    PublicForm,
    ResourceClass,
    Sort,
    Store,
    Stored,
    canonical,
    changed_fields,
    compile_predicate,
    conjunction,
    json_schema,
    public_id,
    selected,
)
from documents.filters import And, Compare, ElementMatch, Not, NotCompare, Or
from documents.shapes import FieldType
from realtime.frames import Frame, event_frame
from realtime.protocol import Op

if TYPE_CHECKING:
    from realtime.subscriptions import Subscription


@dataclass(frozen=True, slots=True)
class ViewQuery:
    """What a client asks to watch: the whole of its filter, and the fields it wants (public names, None: all)."""

    resource: ResourceClass
    filter: Filter
    fields: tuple[str, ...] | None = None


@dataclass(eq=False)
class View:
    """A live result that any number of subscriptions share.

    Its identity is the resource, the client's filter, the read rule as it stands for the client, the fields that the
    client may and wants to see, and the declaration of the class. Two clients with equal identities get the same
    bytes.
    """

    id: str
    resource: ResourceClass
    filter: Filter
    matches: DocumentTest
    form: PublicForm
    selected: frozenset[str] | None
    positions: PositionCodec
    subscriptions: set[Subscription] = field(default_factory=set)

    def event(self, change: Change) -> Frame | None:
        """The event that `change` is in this view; None when the view cannot see it."""
        matched = change.before is not None and self.matches(change.before)
        matches = change.after is not None and self.matches(change.after)
        if matched and not matches:
            return self._frame(change, Op.DELETE if change.after is None else Op.LEAVE)
        if not matches or change.after is None:
            return None
        document = self.form.document(change.after)
        etag = self.form.etag(document)
        changed = None
        if matched and change.before is not None:
            changed = self._visible_changes(change.before, document)
            if not changed:
                return None
            op = Op.UPDATE
        else:
            op = Op.CREATE if change.before is None else Op.ENTER
        return self._frame(change, op, self.select(document), etag, changed)

    def _visible_changes(self, before: Stored, document: dict[str, object]) -> list[str]:
        changed = changed_fields(self.form.document(before), document)
        return changed if self.selected is None else [name for name in changed if name in self.selected]

    def _frame(
        self,
        change: Change,
        op: Op,
        document: dict[str, object] | None = None,
        etag: str | None = None,
        changed: list[str] | None = None,
    ) -> Frame:
        return event_frame(
            view=self.id,
            op=op,
            resource=self.resource.name,
            id=public_id(change.document_id, self.resource.id_kind),
            position=self.positions.encode(change.position),
            at=change.at,
            document=document,
            etag=etag,
            changed=changed,
        )

    def select(self, document: dict[str, object]) -> dict[str, object]:
        """The wanted fields of a public document; its id always is one of them."""
        return document if self.selected is None else selected(document, self.selected)


def _paths(node: Filter) -> Iterator[str]:
    """The stored paths that a filter looks at; within `$elemMatch` only the array's."""
    match node:
        case Compare() | ElementMatch():
            yield node.path
        case And() | Or():
            for part in node.parts:
                yield from _paths(part)
        case Not():
            yield from _paths(node.part)
        case NotCompare():
            for operand in node.operands:
                yield from _paths(operand)


def _shape(fields: Fields) -> str:
    """The fields' names and types as text, the same in every process (the markers' functions have no such form)."""
    return ",".join(f"{f.name}>{f.public}:{_type_shape(f.type)}" for f in sorted(fields.values(), key=lambda f: f.name))


def _type_shape(field_type: FieldType) -> str:
    inner = [] if field_type.item is None else [_type_shape(field_type.item)]
    inner += [_type_shape(alternative) for alternative in field_type.alternatives]
    if field_type.fields is not None:
        inner.append(_shape(field_type.fields))
    return f"{field_type.kind}{'?' if field_type.nullable else ''}({';'.join(inner)})"


class ViewIndex:
    """All views of this worker that somebody subscribes to, by collection."""

    def __init__(self, store: Store, positions: PositionCodec) -> None:
        self._store = store
        self._positions = positions
        self._views: dict[str, View] = {}
        self._by_collection: defaultdict[str, dict[str, View]] = defaultdict(dict)
        self._schemas: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._views)

    def attach(self, query: ViewQuery, principal: Principal) -> View:
        """The view of `query` for `principal`; made and indexed when it is new.

        The caller adds its subscription to the view, and calls `release` when it is done with it.
        """
        identity = self.identify(query, principal)
        view = self._views.get(identity)
        if view is None:
            rule, _ = query.resource.rule("read", principal)
            both = conjunction([rule, query.filter])
            view = View(
                id=identity,
                resource=query.resource,
                filter=both,
                matches=compile_predicate(both),
                form=self._store.public_form(query.resource, principal.roles),
                selected=None if query.fields is None else frozenset(query.fields),
                positions=self._positions,
            )
            self._views[identity] = view
            self._by_collection[query.resource.name][identity] = view
        return view

    def release(self, view: View) -> None:
        """Forget a view that has no subscriptions."""
        if not view.subscriptions and self._views.get(view.id) is view:
            del self._views[view.id]
            del self._by_collection[view.resource.name][view.id]

    def identify(self, query: ViewQuery, principal: Principal) -> str:
        """The name of the view: the same for the same content, on every worker and after every restart."""
        resource = query.resource
        rule, _ = resource.rule("read", principal)
        digest = hashlib.blake2b(digest_size=15)
        visible = ",".join(sorted(resource.visible(principal.roles)))
        selected = "*" if query.fields is None else ",".join(sorted(set(query.fields)))
        for part in (
            self._store.database.id.encode(),
            resource.name.encode(),
            canonical(query.filter),
            canonical(rule),
            visible.encode(),
            selected.encode(),
            self._schema(resource),
        ):
            digest.update(len(part).to_bytes(4, "big") + part)
        return "v" + base64.urlsafe_b64encode(digest.digest()).decode("ascii")

    def _schema(self, resource: ResourceClass) -> bytes:
        """A fingerprint of the class's fields and rules: a view of another version of the class is another view."""
        if (known := self._schemas.get(resource.name)) is None:
            declared = f"{_shape(resource.fields)} {json_schema(resource)}"
            known = self._schemas[resource.name] = hashlib.blake2b(declared.encode()).digest()
        return known

    @staticmethod
    def permits(query: ViewQuery, sort: Sort, principal: Principal) -> bool:
        """Whether `principal` may see every field that the query filters, sorts or selects by.

        A query is checked when it is parsed; this is for one that was, and whose user has other rights by now.
        """
        visible = query.resource.visible(principal.roles)
        stored = [*_paths(query.filter), *(key.path for key in sort)]
        public = {known.public for known in visible.values()}
        return all(path.split(".")[0] in visible for path in stored) and public.issuperset(query.fields or ())

    def of_collection(self, name: str) -> Sequence[View]:
        """The views of one collection. A copy: listeners may release views while they walk it."""
        return list(self._by_collection[name].values()) if name in self._by_collection else ()

    def __iter__(self) -> Iterator[View]:
        return iter(list(self._views.values()))
