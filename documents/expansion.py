"""Embedding the documents that others refer to, as the caller may see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from documents.access import Principal
from documents.codec import decoded
from documents.database import Database, driver_errors
from documents.errors import Fault, FilterRefused, InvalidInput
from documents.filters import NOTHING, Compare, Operator, conjunction, to_query
from documents.ids import parse_id
from documents.lists import QUERY_TIME_LIMIT_MS
from documents.markers import References
from documents.resources import Registry, ResourceClass
from documents.shapes import Field
from documents.store import Store

#: Each relation is a query.
MAX_RELATIONS = 5
#: Documents that one relation embeds into one answer.
MAX_EMBEDDED = 1_000
_LOC = ("query", "expand")


@dataclass(frozen=True, slots=True)
class Relation:
    """A field, by its public name, that refers to documents of `target`, and what of those is expanded in turn."""

    field: str
    target: ResourceClass
    inner: tuple[Relation, ...]


Expansion = tuple[Relation, ...]


def parse_expand(names: Sequence[str], resource: ResourceClass, registry: Registry, principal: Principal) -> Expansion:
    """The relations that names such as `author_id` and `post_id.author_id` ask for, as `principal` sees the fields.

    Raises FilterRefused for fields that do not exist or refer to nothing, for more than one level below, and for more
    than MAX_RELATIONS.
    """
    tree: dict[str, dict[str, Any]] = {}
    faults: list[Fault] = []
    if not names:
        faults.append(Fault(_LOC, "name at least one field", "too_short"))
    for name in names:
        first, _, second = name.partition(".")
        if "." in second:
            faults.append(Fault(_LOC, f"`{name}`: one level below is the deepest", "too_deep"))
            continue
        inner = tree.setdefault(first, {})
        if "." in name:
            inner[second] = {}
    if sum(1 + len(inner) for inner in tree.values()) > MAX_RELATIONS:
        faults.append(Fault(_LOC, f"at most {MAX_RELATIONS} relations", "too_long"))
    expansion = _relations(tree, resource, registry, principal, "", faults) if not faults else ()
    if faults:
        raise FilterRefused(faults)
    return expansion


def _relations(
    tree: Mapping[str, Mapping[str, Any]],
    resource: ResourceClass,
    registry: Registry,
    principal: Principal,
    prefix: str,
    faults: list[Fault],
) -> Expansion:
    by_public = {f.public: f for f in resource.visible(principal.roles).values()}
    found: list[Relation] = []
    for name, below in tree.items():
        if name not in by_public:
            faults.append(Fault(_LOC, f"there is no field `{prefix}{name}`", "unknown_field"))
        elif (target := _target(by_public[name], registry)) is None:
            faults.append(Fault(_LOC, f"`{prefix}{name}` does not refer to documents", "not_a_reference"))
        else:
            inner = _relations(below, target, registry, principal, f"{prefix}{name}.", faults)
            found.append(Relation(name, target, inner))
    return tuple(found)


def _target(field: Field, registry: Registry) -> ResourceClass | None:
    return next((registry.get(m.resource) for m in field.markers if isinstance(m, References)), None)


def references_of(resource: ResourceClass) -> dict[str, str]:
    """The fields that refer to documents, by public name, and the resources that they refer to."""
    return {f.public: m.resource for f in resource.fields.values() for m in f.markers if isinstance(m, References)}


class Expansions:
    """Embeds referenced documents through the read rule and the visible fields of *their* class."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store

    async def embed(
        self, documents: Sequence[Mapping[str, Any]], expansion: Expansion, principal: Principal
    ) -> list[dict[str, Any]]:
        """`documents`, in their public form, each with `expanded`: by field the document referred to.

        One query for each relation, however many documents there are. What is not there and what the caller may not
        read are one and the same: null, or missing from the list that a list of references becomes. A field that is
        not stored has no entry. Raises FilterRefused when a relation would embed more than MAX_EMBEDDED.
        """
        expanded: list[dict[str, Any]] = [{} for _ in documents]
        for relation in expansion:
            references = [document.get(relation.field) for document in documents]
            targets = await self._read(relation, references, principal)
            for into, reference in zip(expanded, references, strict=True):
                if isinstance(reference, list):
                    into[relation.field] = [targets[str(one)] for one in reference if str(one) in targets]
                elif reference is not None:
                    into[relation.field] = targets.get(str(reference))
        return [{**document, "expanded": into} for document, into in zip(documents, expanded, strict=True)]

    async def _read(
        self, relation: Relation, references: Sequence[Any], principal: Principal
    ) -> dict[str, dict[str, Any]]:
        """The readable documents among those referred to, by id, with their own relations expanded."""
        target = relation.target
        texts = {
            str(one)
            for reference in references
            for one in (reference if isinstance(reference, list) else [reference])
            if isinstance(one, str | int)
        }
        ids = _ids(target, sorted(texts))
        rule, _ = target.rule("read", principal)
        if len(ids) > MAX_EMBEDDED:
            msg = f"`{relation.field}` refers to more than {MAX_EMBEDDED} documents; ask for a smaller page"
            raise FilterRefused([Fault(_LOC, msg, "too_long")])
        if not ids or rule == NOTHING:
            return {}
        wanted = to_query(conjunction([rule, Compare("_id", Operator.IN, ids)]))
        with driver_errors():
            found = self._database.readable(target.name).find(wanted).max_time_ms(QUERY_TIME_LIMIT_MS)
            stored = await found.to_list(len(ids))
        form = self._store.public_form(target, principal.roles)
        documents = [form.document(decoded(document)) for document in stored]
        if relation.inner:
            documents = await self.embed(documents, relation.inner, principal)
        return {document["id"]: document for document in documents}


def _ids(target: ResourceClass, texts: Sequence[str]) -> list[Any]:
    """Typed ids. A stored reference that no document of the class can have refers to nothing."""
    ids: list[Any] = []
    for text in texts:
        try:
            ids.append(parse_id(target, text))
        except InvalidInput:
            continue
    return ids
