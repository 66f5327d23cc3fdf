"""Distinct values below arrays and objects, as MongoDB's own `distinct` finds them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from bson import Decimal128

from documents import Aggregates, conjunction, parse_distinct
from tests.documents.classes import ANN, World

STORED: list[dict[str, Any]] = [
    {"must": 1, "part": {"name": "a"}, "parts": [{"name": "x"}, {"name": "y"}], "pair": [1, 2, 1]},
    {"must": 2, "part": {"name": "b"}, "parts": [{"name": "x"}, {"name": "x", "weight": Decimal128("2")}]},
    # What breaks the rules is looked at in the same way.
    {"must": 3, "part": [{"name": "c"}, {"name": "d"}], "parts": {"name": "z"}, "pair": 7, "counts": [{"k": 9}]},
    {"must": 4, "part": None, "parts": [], "counts": {"k": 8}},
]
VALUES: dict[str, dict[Any, int]] = {
    "parts.name": {"x": 2, "y": 1, "z": 1},
    "parts.weight": {"2": 1},
    "part.name": {"a": 1, "b": 1, "c": 1, "d": 1},
    "pair": {1: 1, 2: 1, 7: 1},
    "counts.k": {8: 1, 9: 1},
}


@pytest.mark.parametrize("path", VALUES)
async def test_values_below_arrays(world: World, path: str) -> None:
    """Every array on the way is taken apart; a document counts once for each value."""
    await world.database.raw["specimens"].insert_many(copy.deepcopy(STORED), bypass_document_validation=True)
    specimens = world.registry["specimens"]
    field = parse_distinct(path, specimens.fields)
    aggregates = Aggregates(world.database)
    counted = await aggregates.distinct(specimens, field, conjunction([]), ANN, limit=10, counted=True)
    assert {item["value"]: item["count"] for item in counted.items} == VALUES[path]
    plain = await aggregates.distinct(specimens, field, conjunction([]), ANN, limit=10, counted=False)
    assert [item["value"] for item in plain.items] == list(VALUES[path])
