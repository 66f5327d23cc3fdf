"""What the server refuses to store, as faults with places; and what of that a caller may read.

The server explains its validator's refusal in `errInfo`:
https://www.mongodb.com/docs/manual/core/schema-validation/handle-invalid-documents/
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from bson.errors import InvalidDocument
from pymongo.errors import DocumentTooLarge, WriteError

from documents.access import Principal
from documents.codec import Stored
from documents.database import driver_errors
from documents.errors import DocumentRefused, Duplicate, Fault
from documents.input import masked
from documents.markers import Hidden
from documents.resources import ResourceClass

DOCUMENT_VALIDATION_FAILURE = 121

Loc = tuple[str | int, ...]


@contextlib.contextmanager
def masking(resource: ResourceClass, principal: Principal) -> Iterator[None]:
    """Errors inside tell nothing of fields that `principal` may not see."""
    visible = resource.visible(principal.roles)
    try:
        yield
    except DocumentRefused as refused:
        raise DocumentRefused(masked(refused.faults, visible)) from None
    except Duplicate as duplicate:
        public = {f.public for f in visible.values()}
        raise Duplicate([name for name in duplicate.fields if name.split(".")[0] in public]) from None


@contextlib.contextmanager
def refusing(resource: ResourceClass) -> Iterator[None]:
    """A write inside raises DocumentRefused for what the server cannot or will not store, and Duplicate."""
    try:
        with driver_errors():
            yield
    except WriteError as error:
        if error.code != DOCUMENT_VALIDATION_FAILURE:
            # Too large for the server, or something that an index cannot hold.
            raise DocumentRefused(
                [Fault(("body",), f"the database cannot store the document (error {error.code})", "unstorable")]
            ) from None
        raise DocumentRefused(faults_of_refusal(error.details or {}, resource)) from None
    except (DocumentTooLarge, InvalidDocument, OverflowError) as error:
        raise DocumentRefused([Fault(("body",), f"the document cannot be stored: {error}", "unstorable")]) from None


def faults_of_refusal(details: Mapping[str, Any], resource: ResourceClass) -> list[Fault]:
    """The faults in a WriteError's `details`. Values and hidden fields are not repeated; at least one fault."""
    hidden = {f.name for f in resource.fields.values() if any(isinstance(m, Hidden) for m in f.markers)}
    rules = details.get("errInfo", {}).get("details", {}).get("schemaRulesNotSatisfied", [])
    faults = [f for f in _faults(rules, ("body",)) if not (len(f.loc) > 1 and f.loc[1] in hidden)]
    return faults or [Fault(("body",), "the collection's validator refuses the document", "validator")]


def is_kept(fault: Fault, read: Stored, written: Stored) -> bool:
    """Whether the fault is a field that nobody declared, and that the document has had before as it has it now."""
    if fault.type != "extra_forbidden":
        return False
    before: Any = read
    after: Any = written
    for step in fault.loc[1:]:
        try:
            before, after = before[step], after[step]
        except (KeyError, IndexError, TypeError):
            return False
    return bool(before == after)


def _faults(rules: Any, loc: Loc) -> Iterator[Fault]:
    for rule in rules if isinstance(rules, list) else []:
        operator = str(rule.get("operatorName", "validator"))
        if "propertiesNotSatisfied" in rule:
            for entry in rule["propertiesNotSatisfied"]:
                yield from _faults(entry.get("details"), (*loc, str(entry.get("propertyName"))))
        elif "missingProperties" in rule:
            for name in rule["missingProperties"]:
                yield Fault((*loc, str(name)), "the field is required", "missing")
        elif isinstance(rule.get("additionalProperties"), list):
            for name in rule["additionalProperties"]:
                yield Fault((*loc, str(name)), "there is no such field", "extra_forbidden")
        elif "failingProperty" in rule:  # of a map
            yield from _faults(rule.get("details"), (*loc, str(rule["failingProperty"])))
        elif "schemasNotSatisfied" in rule:
            yield Fault(loc, "it fits none of the alternatives", operator)
        elif "itemIndex" in rule:
            yield from _faults(rule.get("details"), (*loc, int(rule["itemIndex"])))
        else:
            yield Fault(loc, str(rule.get("reason", "the collection's validator refuses it")), operator)
