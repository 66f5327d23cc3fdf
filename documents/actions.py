"""Custom actions: what else than create, replace, patch and delete may be done to a document of a class.

An action is declared on the class (`Resource(actions=(…))`) and served at `POST /{collection}/{id}/{action}`. It is a
pure function from the stored document and a form to changed values; reading, rights, validation, the conditional write
and the answer are those of every other write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from documents.access import Rule
from documents.errors import DeclarationError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
#: Names of what an access rule is for.
_OPERATIONS = frozenset({"read", "create", "update", "delete"})


class ActionForm(BaseModel):
    """Base of the forms of actions: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Notice:
    """What a user is told by mail. `subject` is fixed text; what people wrote belongs into `lines`."""

    subject: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Performed:
    """An action that was done. `before` and `after` are the document's stored values and must not be changed."""

    form: Any
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a class.

    `changes(stored, form)` gives the changed values by stored name, from the document as it is stored; it has no
    effects and may be called more than once, when another writer was faster. `access` must hold for the document before
    the action; unlike `update` it need not hold after it. Acting needs `read`, too.

    `concerns` names the field with the id of the user whose document it is. `notice` gives what that user is told
    afterwards by mail, or None; nobody is told of what they did themselves. With `audited`, the form and who sent it go
    into the audit: do not audit forms that hold secrets.
    """

    name: str
    form: type[ActionForm]
    access: Rule
    changes: Callable[[Mapping[str, Any], Any], Mapping[str, Any]]
    description: str
    concerns: str | None = None
    notice: Callable[[Performed], Notice | None] | None = None
    audited: bool = False

    def check(self, label: str, fields: Mapping[str, Any]) -> None:
        """Raises DeclarationError when the action cannot be served as it is declared on the class `label`."""
        place = f"{label}.resource.actions: {self.name!r}"
        if not _NAME.fullmatch(self.name) or self.name in _OPERATIONS:
            raise DeclarationError(f"{place} must be in snake_case, and none of {', '.join(sorted(_OPERATIONS))}")
        if not issubclass(self.form, ActionForm):
            raise DeclarationError(f"{place}: its form must derive from ActionForm")
        if self.concerns is not None and self.concerns not in fields:
            raise DeclarationError(f"{place} concerns {self.concerns!r}, which is not a field")
