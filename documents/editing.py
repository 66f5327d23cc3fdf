"""Documents as patches edit them: the public form, whose texts remember the BSON values that they stand for.

A patch speaks of the public form as its caller sees it, so what they may not see is not there to be tested, copied or
moved. What it leaves alone, or moves to another place, keeps its BSON type: an ObjectId that becomes a text on the way
out becomes the same ObjectId on the way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from documents.codec import Stored
from documents.errors import DocumentRefused, Fault
from documents.filters import Place, resolve
from documents.input import parse_values, to_python
from documents.public import PublicForm, public_value
from documents.shapes import Fields, FieldType, Kind

Loc = tuple[str | int, ...]


class Text(str):
    """A JSON text that stands for the BSON value `stored`, which is no text."""

    __slots__ = ("stored",)
    stored: Any

    @classmethod
    def of(cls, text: str, stored: Any) -> Text:
        """`text` as what `stored` looks like in JSON."""
        made = cls(text)
        made.stored = stored
        return made

    def __deepcopy__(self, _memo: object) -> Text:
        return self


def editable(public: Any, stored: Any) -> Any:
    """`public`, the public form of `stored`, with its texts as `Text` where a BSON value of another type is behind."""
    if isinstance(public, dict) and isinstance(stored, Mapping):
        return {name: editable(value, stored.get(name)) for name, value in public.items()}
    if isinstance(public, list) and isinstance(stored, list | tuple):
        return [editable(value, inner) for value, inner in zip(public, stored, strict=True)]
    if isinstance(public, str):
        return public if isinstance(stored, str) else Text.of(public, stored)
    return stored if isinstance(stored, int) else public  # an Int64 stays one


def edited(stored: Any) -> Any:
    """Any BSON value as it stands in an editable document."""
    return editable(public_value(stored), stored)


def bson_value(value: Any) -> Any:
    """The BSON value behind an editable one."""
    if isinstance(value, Text):
        return value.stored
    if isinstance(value, dict):
        return {name: bson_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [bson_value(inner) for inner in value]
    return value


@dataclass(frozen=True, slots=True)
class Edit:
    """What one part of a patch changes: the path in the document, and the place in the request.

    `given` says whether the request has at that place the very value that the document is to have at the path.
    """

    path: tuple[str, ...]
    loc: Loc
    given: bool


@dataclass(frozen=True, slots=True)
class Editor:
    """How callers of one kind edit documents of one class: the fields that they see, those that they may set, the
    public form, and the form that types of changed fields are checked by."""

    visible: Fields
    writable: Fields
    form: PublicForm
    update: type[BaseModel]

    def open(self, stored: Stored) -> dict[str, Any]:
        """The editable document. A patch must not change it in place, but may copy it."""
        document = self.form.content(stored)
        return {name: editable(value, stored["_id" if name == "id" else name]) for name, value in document.items()}

    def place(self, path: str) -> Place | None:
        """What the public, dotted `path` names; None where this caller knows no field."""
        return resolve(path, FieldType(Kind.OBJECT, fields=self.visible))

    def parse(self, values: Mapping[str, Any], edits: Sequence[Edit] = ()) -> dict[str, Any]:
        """The new values of writable fields as Python values, but for fields that anything fits.

        Raises DocumentRefused for those of a wrong type, at the place of the one of `edits` that made them.
        """
        typed = {name: value for name, value in values.items() if not _is_free(self.writable[name].type)}
        try:
            return parse_values(self.update, typed)
        except DocumentRefused as refused:
            raise DocumentRefused([_traced(fault, edits) for fault in refused.faults]) from None

    def close(
        self, stored: Stored, before: Mapping[str, Any], after: Mapping[str, Any], edits: Sequence[Edit] = ()
    ) -> dict[str, Any]:
        """The new document as Python values by stored name, given the editable one before and after the patch.

        A field that is gone gets its default again. Only writable fields of `after` are looked at. Raises
        DocumentRefused for values of a wrong type, at the place of the one of `edits` that made them.
        """
        changed = {
            name: value
            for name, value in after.items()
            if name in self.writable and not (name in before and same(before[name], value))
        }
        gone = {name for name in before if name in self.writable and name not in after}
        parsed = self.parse(changed, edits)
        values = {name: _restored(parsed.get(name), value, self.writable[name].type) for name, value in changed.items()}
        return to_python({n: v for n, v in stored.items() if n not in changed and n not in gone}) | values


def _traced(fault: Fault, edits: Iterable[Edit]) -> Fault:
    """`fault`, whose place is in the document, at the place in the request that brought it about."""
    path = tuple(map(str, fault.loc[1:]))
    of_field = [edit for edit in edits if edit.path[:1] == path[:1] or not edit.path]
    for edit in reversed(of_field):
        if path[: len(edit.path)] == edit.path:
            below = fault.loc[1 + len(edit.path) :] if edit.given else ()
            return Fault((*edit.loc, *below), fault.msg, fault.type)
    return Fault(of_field[-1].loc, fault.msg, fault.type) if of_field else fault


def same(a: Any, b: Any) -> bool:
    """Whether two editable values are the same JSON and stand for the same types. True is not 1, and 1 is not 1.0."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[name]) for name, value in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Text):
        return type(a.stored) is type(b.stored) and str(a) == str(b)
    return bool(a == b)


def _is_free(field_type: FieldType) -> bool:
    """Whether anything fits, so that a value need not pass through the form, which knows JSON's types only."""
    match field_type.kind:
        case Kind.ANY:
            return True
        case Kind.MAP | Kind.ARRAY:
            return field_type.item is not None and not field_type.constraints and _is_free(field_type.item)
    return False


def _restored(parsed: Any, value: Any, field_type: FieldType) -> Any:
    """`parsed`, which the form made of the editable `value`, with BSON's own types back where anything fits."""
    if _is_free(field_type):
        return to_python({"": bson_value(value)})[""]
    item = field_type.item
    if field_type.kind is Kind.OBJECT and isinstance(parsed, BaseModel) and isinstance(value, dict):
        fields, infos = field_type.fields or {}, type(parsed).model_fields
        names = {attribute: info.alias or attribute for attribute, info in infos.items()}
        kept = {
            attribute: _restored(getattr(parsed, attribute), value[name], fields[name].type)
            for attribute, name in names.items()
            if name in value and name in fields
        }
        return parsed.model_copy(update=kept)
    if item is not None and isinstance(parsed, list) and isinstance(value, list):
        return [_restored(one, held, item) for one, held in zip(parsed, value, strict=True)]
    if item is not None and isinstance(parsed, dict) and isinstance(value, dict):
        return {name: _restored(one, value[name], item) for name, one in parsed.items()}
    return parsed
