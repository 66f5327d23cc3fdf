"""The image after an update, from the image before and MongoDB's difference."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from documents.images import ImageError, apply_update

BEFORE: dict[str, Any] = {
    "_id": 1,
    "title": "a",
    "author": {"name": "ann", "address": {"town": "x", "zip": "1"}},
    "tags": ["p", "q", "r"],
    "lines": [{"n": 1}, {"n": 2, "parts": [1, 2]}],
    "home.town": "Oxford",
    "counts": {"0": 5, "10": 6},
    "residences": [{"0": "Oxford"}, {"1": "Sunbury"}],
}


def described(
    updated: dict[str, Any] | None = None,
    removed: list[str] | None = None,
    truncated: list[dict[str, Any]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    return {
        "updatedFields": updated or {},
        "removedFields": removed or [],
        "truncatedArrays": truncated or [],
        **more,
    }


def changed(**fields: Any) -> dict[str, Any]:
    return {**BEFORE, **fields}


CASES = {
    "a field": (described({"title": "b"}), changed(title="b")),
    "a new field": (described({"z": 1}), changed(z=1)),
    "a nested field": (
        described({"author.address.town": "y"}),
        changed(author={"name": "ann", "address": {"town": "y", "zip": "1"}}),
    ),
    "a new nested field": (described({"author.age": 3}), changed(author={**BEFORE["author"], "age": 3})),
    "an element": (described({"tags.1": "Q"}), changed(tags=["p", "Q", "r"])),
    "a pushed element": (described({"tags.3": "s"}), changed(tags=["p", "q", "r", "s"])),
    "an element beyond the end": (described({"tags.5": "s"}), changed(tags=["p", "q", "r", None, None, "s"])),
    "a field in an element": (
        described({"lines.1.parts.0": 9}),
        changed(lines=[{"n": 1}, {"n": 2, "parts": [9, 2]}]),
    ),
    "a removed nested field": (
        described(removed=["author.address.zip"]),
        changed(author={"name": "ann", "address": {"town": "x"}}),
    ),
    "a cut array": (described(truncated=[{"field": "tags", "newSize": 1}]), changed(tags=["p"])),
    "a cut array whose rest changes": (
        described({"tags.0": "P"}, truncated=[{"field": "tags", "newSize": 2}]),
        changed(tags=["P", "q"]),
    ),
    "a cut nested array": (
        described(truncated=[{"field": "lines.1.parts", "newSize": 0}]),
        changed(lines=[{"n": 1}, {"n": 2, "parts": []}]),
    ),
    "a name with a dot": (
        described({"home.town": "London"}, disambiguatedPaths={"home.town": ["home.town"]}),
        changed(**{"home.town": "London"}),
    ),
    "a numeric name in an element": (
        described({"residences.0.0": "London"}, disambiguatedPaths={"residences.0.0": ["residences", 0, "0"]}),
        changed(residences=[{"0": "London"}, {"1": "Sunbury"}]),
    ),
    "a removed numeric name": (
        described(removed=["counts.0"], disambiguatedPaths={"counts.0": ["counts", "0"]}),
        changed(counts={"10": 6}),
    ),
    "a cut array under a name with a dot": (
        described(
            truncated=[{"field": "author.x.y", "newSize": 1}],
            disambiguatedPaths={"author.x.y": ["author", "x.y"]},
        ),
        None,
    ),
    "an undisambiguated numeric name": (described({"counts.0": 7}), changed(counts={"0": 7, "10": 6})),
    "nothing": ({}, BEFORE),
}


@pytest.mark.parametrize("case", [name for name, (_, after) in CASES.items() if after is not None])
def test_each_kind_of_difference_gives_the_document(case: str) -> None:
    """The difference, as MongoDB documents it, leads to the documented document, in the same field order."""
    description, after = CASES[case]
    result = apply_update(BEFORE, description)
    assert after is not None
    assert list(result.items()) == list(after.items())


@pytest.mark.parametrize("case", CASES)
def test_the_image_before_is_not_changed(case: str) -> None:
    """The image before is shared with other changes and stays what it was, also when the update fails."""
    before = copy.deepcopy(BEFORE)
    try:
        apply_update(before, CASES[case][0])
    except ImageError:
        assert CASES[case][1] is None
    assert before == BEFORE


def test_unchanged_parts_are_shared_and_not_copied() -> None:
    """Only containers on the way to a change are copied, each of them once."""
    after = apply_update(BEFORE, described({"author.address.town": "y", "author.name": "bob"}))
    assert after["tags"] is BEFORE["tags"]
    assert after["lines"] is BEFORE["lines"]
    assert after["author"] == {"name": "bob", "address": {"town": "y", "zip": "1"}}


def test_changed_fields_keep_their_place_and_new_ones_come_last() -> None:
    """The order of fields is the one that MongoDB stores."""
    after = apply_update({"_id": 1, "a": 1, "b": 2, "c": 3}, described({"b": 9, "e": 1, "d": 1}, removed=["a"]))
    assert list(after) == ["_id", "b", "c", "e", "d"]


def test_a_removed_and_a_set_field_may_share_a_parent() -> None:
    """Removing and setting below one container both take effect."""
    after = apply_update({"_id": 1, "a": {"b": 1, "c": 2}}, described({"a.d": 3}, removed=["a.b"]))
    assert after == {"_id": 1, "a": {"c": 2, "d": 3}}


MISFITS = {
    "a parent that is missing": described({"nowhere.x": 1}),
    "a parent that is a value": described({"title.x": 1}),
    "a name in an array": described({"tags.first": 1}),
    "an index with a leading zero": described({"tags.01": 1}),
    "a negative index": described({"tags.-1": 1}),
    "an index in a document": described({"author.0": 1}, disambiguatedPaths={"author.0": ["author", 0]}),
    "a numeric name in an array": described({"tags.0": 1}, disambiguatedPaths={"tags.0": ["tags", "0"]}),
    "an element of a missing element": described({"lines.7.n": 1}),
    "a removed field that is missing": described(removed=["author.age"]),
    "a removed element": described(removed=["tags.0"]),
    "a cut of a document": described(truncated=[{"field": "author", "newSize": 0}]),
    "a cut to more than there is": described(truncated=[{"field": "tags", "newSize": 4}]),
    "a name with a dot that is not told apart": described({"home.town": "London"}),
    "an array padded without bound": described({"tags.99999999": 1}),
    "an empty path": described({"tags": 1}, disambiguatedPaths={"tags": []}),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_difference_that_does_not_fit_is_an_error(case: str) -> None:
    """An image is never guessed: the change then becomes a reset."""
    with pytest.raises(ImageError):
        apply_update(BEFORE, MISFITS[case])
