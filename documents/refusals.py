"""What a collection's validator says of a document it refuses, as faults with places.

The server explains a refusal in `errInfo`:
https://www.mongodb.com/docs/manual/core/schema-validation/handle-invalid-documents/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from documents.errors import Fault
from documents.markers import Hidden
from documents.resources import ResourceClass

Loc = tuple[str | int, ...]


def faults_of_refusal(details: Mapping[str, Any], resource: ResourceClass) -> list[Fault]:
    """The faults in a WriteError's `details`. Values and hidden fields are not repeated; at least one fault."""
    hidden = {f.name for f in resource.fields.values() if any(isinstance(m, Hidden) for m in f.markers)}
    rules = details.get("errInfo", {}).get("details", {}).get("schemaRulesNotSatisfied", [])
    faults = [f for f in _faults(rules, ("body",)) if not (len(f.loc) > 1 and f.loc[1] in hidden)]
    return faults or [Fault(("body",), "the collection's validator refuses the document", "validator")]


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
        elif "itemIndex" in rule:
            yield from _faults(rule.get("details"), (*loc, int(rule["itemIndex"])))
        else:
            yield Fault(loc, str(rule.get("reason", "the collection's validator refuses it")), operator)
