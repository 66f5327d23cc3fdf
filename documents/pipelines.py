"""Reports: aggregation pipelines that a class declares, checked at start, with typed parameters put in as values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from documents.errors import DeclarationError, Fault, FilterRefused
from documents.input import bson_value, faults_from, faults_of_text
from documents.shapes import FieldType, Kind, fields_of

#: Stages that read nothing but the documents they are given, write nothing and run no code.
STAGES = frozenset(
    {
        *("$match", "$project", "$addFields", "$set", "$unset", "$replaceRoot", "$replaceWith", "$unwind"),
        *("$group", "$bucket", "$bucketAuto", "$sortByCount", "$count", "$setWindowFields", "$densify", "$fill"),
        *("$sort", "$limit", "$skip", "$sample", "$facet"),
    }
)
#: Operators that run code, need to stand first, or tell of the server.
_REFUSED = frozenset({"$function", "$accumulator", "$where", "$text", "$near", "$nearSphere", "$meta"})
_REFUSED_VARIABLES = ("$$USER_ROLES", "$$SEARCH_META", "$$CLUSTER_TIME")
#: Where a client's text would be a program.
_PATTERNS = frozenset({"$regex", "regex", "$options", "options"})
#: Stages whose operand is plain numbers, for which `$literal` is not allowed.
_PLAIN = frozenset({"$limit", "$skip", "$sample", "$sort"})
_KINDS = frozenset(Kind) - {Kind.OBJECT, Kind.MAP, Kind.ANY, Kind.UNION, Kind.BINARY, Kind.ARRAY}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MAX_REPEATS = 100


@dataclass(frozen=True, slots=True)
class Parameter:
    """Stands in a pipeline for a value that the caller gives: always a value, never an operator or a field's path.

    In the conditions of `$match`, one that was not given and is None by default takes its condition away with it.
    """

    name: str


@dataclass(frozen=True)
class Report:
    """An aggregation over the documents that the caller may read, each cut to the fields that the caller sees.

    `pipeline` holds stages as MongoDB has them, with `Parameter`s in the place of values; `parameters` declares those:
    texts, numbers, times, ids, choices, and lists of these. `output` describes a row for the OpenAPI document.
    """

    pipeline: Sequence[Mapping[str, Any]]
    description: str
    parameters: type[BaseModel] | None = None
    output: type[BaseModel] | None = None

    def check(self, name: str) -> None:
        """Raises DeclarationError for a pipeline that reads elsewhere, writes or runs code, or names no parameter."""
        if not _NAME.fullmatch(name):
            raise DeclarationError(f"{name!r} must be plain snake_case")
        declared = self._declared(name)
        _check_pipeline(self.pipeline, name)
        for parameter in _parameters(self.pipeline):
            if parameter.name not in declared:
                raise DeclarationError(f"{name}: there is no parameter {parameter.name!r}")

    def _declared(self, name: str) -> Mapping[str, tuple[FieldType, bool]]:
        """Each parameter's plain type, and whether it is a list of such."""
        if self.parameters is None:
            return {}
        declared = {}
        for field in fields_of(self.parameters).values():
            plain = field.type.item if field.type.kind is Kind.ARRAY else field.type
            if plain is None or plain.kind not in _KINDS:
                raise DeclarationError(f"{name}: the parameter {field.name!r} must be a plain value, or a list of them")
            declared[field.name] = (plain, field.type.kind is Kind.ARRAY)
        return declared

    def arguments(self, items: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """BSON values of the parameters, from a query string. Raises FilterRefused, naming every fault."""
        declared = self._declared("report")
        given: dict[str, Any] = {}
        faults: list[Fault] = []
        for name, text in items:
            if name not in declared:
                faults.append(Fault(("query", name), f"there is no parameter `{name}`", "unknown_field"))
                continue
            plain, is_list = declared[name]
            # pydantic takes a number for a time.
            faults += faults_of_text(text, plain, ("query", name))
            if is_list:
                given.setdefault(name, []).append(text)
            elif name in given:
                faults.append(Fault(("query", name), "the parameter occurs twice", "repeated"))
            else:
                given[name] = text
            if isinstance(held := given.get(name), list) and len(held) > _MAX_REPEATS:
                raise FilterRefused([Fault(("query", name), f"at most {_MAX_REPEATS} values", "too_long")])
        parsed: BaseModel | None = None
        try:
            parsed = self.parameters.model_validate(given, strict=False) if self.parameters else None
        except ValidationError as error:
            known = {fault.loc[:2] for fault in faults}
            faults += [f for f in faults_from(error, ("query",)) if f.loc[1:2] and f.loc[:2] not in known]
            faults = faults or [Fault(("query",), "the parameters are not accepted", "value_error")]
        if faults:
            raise FilterRefused(faults)
        infos = {
            info.alias or name: name for name, info in (self.parameters.model_fields if self.parameters else {}).items()
        }
        return {name: bson_value(getattr(parsed, infos[name]), ("query", name)) for name in declared}

    def stages(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The pipeline with `arguments` in the place of the parameters."""
        return _filled_pipeline(self.pipeline, arguments)


def _check_pipeline(pipeline: Any, place: str, *, in_facet: bool = False) -> None:
    if isinstance(pipeline, str) or not isinstance(pipeline, Sequence) or (not pipeline and not in_facet):
        raise DeclarationError(f"{place}: a pipeline is a list of stages")
    for number, stage in enumerate(pipeline):
        where = f"{place}, stage {number}"
        if not isinstance(stage, Mapping) or len(stage) != 1:
            raise DeclarationError(f"{where}: a stage has one name")
        ((operator, operand),) = stage.items()
        if operator not in STAGES or (in_facet and operator == "$facet"):
            raise DeclarationError(f"{where}: {operator!r} has no place in a report")
        if operator == "$facet":
            if not isinstance(operand, Mapping):
                raise DeclarationError(f"{where}: $facet has named pipelines")
            for name, inner in operand.items():
                _check_pipeline(inner, f"{where}, {name}", in_facet=True)
        else:
            _check_operand(operand, where)


def _check_operand(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise DeclarationError(f"{where}: {key!r} is not a name")
            if key in _REFUSED or key.startswith("$_"):
                raise DeclarationError(f"{where}: {key!r} has no place in a report")
            if key in _PATTERNS and next(_parameters(inner), None) is not None:
                raise DeclarationError(f"{where}: a parameter may not be a regular expression")
            _check_operand(inner, where)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_operand(inner, where)
    elif isinstance(value, str) and value.startswith(_REFUSED_VARIABLES):
        raise DeclarationError(f"{where}: {value!r} has no place in a report")


def _parameters(value: Any) -> Iterator[Parameter]:
    if isinstance(value, Parameter):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _parameters(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _parameters(inner)


def _filled_pipeline(pipeline: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    filled: list[dict[str, Any]] = []
    for stage in pipeline:
        ((operator, operand),) = stage.items()
        if operator == "$facet":
            filled.append({operator: {name: _filled_pipeline(inner, arguments) for name, inner in operand.items()}})
        elif operator == "$match":
            condition = _condition(operand, arguments)
            filled.append({operator: {} if condition is _GONE else condition})
        else:
            filled.append({operator: _expression(operand, arguments, plain=operator in _PLAIN)})
    return filled


_GONE = object()


def _condition(value: Any, arguments: Mapping[str, Any]) -> Any:
    """A query with its parameters filled in. None of their values is an object or a pattern, so none is an operator."""
    if isinstance(value, Parameter):
        return _GONE if arguments[value.name] is None else arguments[value.name]
    if isinstance(value, Mapping):
        filled = {
            key: _expression(inner, arguments) if key == "$expr" else _condition(inner, arguments)
            for key, inner in value.items()
        }
        kept = {key: inner for key, inner in filled.items() if inner is not _GONE}
        return kept if kept or not value else _GONE
    if isinstance(value, list | tuple):
        items = [item for inner in value if (item := _condition(inner, arguments)) is not _GONE]
        return items if items or not value else _GONE
    return value


def _expression(value: Any, arguments: Mapping[str, Any], *, plain: bool = False) -> Any:
    """An expression with its parameters filled in as literals, so that no text is taken for a field's path."""
    if isinstance(value, Parameter):
        given = arguments[value.name]
        return given if plain else {"$literal": given}
    if isinstance(value, Mapping):
        return {key: _expression(inner, arguments, plain=plain) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_expression(inner, arguments, plain=plain) for inner in value]
    return value
