"""The filter language: one syntax tree, and two compilers that always agree. See README.md."""

from documents.filters.ast import (
    EVERYTHING,
    NOTHING,
    And,
    Compare,
    ElementMatch,
    Everything,
    Filter,
    Not,
    NotCompare,
    Nothing,
    Operator,
    Or,
    conjunction,
    disjunction,
)
from documents.filters.canonical import canonical
from documents.filters.parser import parse_filter
from documents.filters.paths import Place, resolve
from documents.filters.predicate import compile_predicate
from documents.filters.query import to_query
from documents.filters.short import ShortForm, expand_short, parse_short
from documents.filters.traversal import DocumentTest

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "And",
    "Compare",
    "DocumentTest",
    "ElementMatch",
    "Everything",
    "Filter",
    "Not",
    "NotCompare",
    "Nothing",
    "Operator",
    "Or",
    "Place",
    "ShortForm",
    "canonical",
    "compile_predicate",
    "conjunction",
    "disjunction",
    "expand_short",
    "parse_filter",
    "parse_short",
    "resolve",
    "to_query",
]
