"""Positions: their order, and their signed form on the wire."""

from __future__ import annotations

import hmac
import itertools

import pytest
from bson import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from documents.errors import InvalidInput
from documents.positions import Position, PositionCodec

positions = st.builds(Position, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
CODEC = PositionCodec(b"a secret of some length", "database-1")


def test_cluster_time_comes_before_ordinal_in_the_order() -> None:
    """A later cluster time is later whatever the ordinals are, and ordinals order what shares one."""
    early, late = Timestamp(10, 2), Timestamp(10, 3)
    in_order = [Position.ZERO, Position.of(early, 0), Position.of(early, 1), Position.end_of(early),
                Position.of(late, 0), Position.of(late, 7)]  # fmt: skip
    assert all(one < other for one, other in itertools.pairwise(in_order))


def test_a_position_gives_back_its_timestamp() -> None:
    """The BSON timestamp survives the way through the 64-bit form."""
    timestamp = Timestamp(2**32 - 1, 2**32 - 2)
    assert Position.of(timestamp, 3).timestamp == timestamp


@given(positions)
def test_decode_gives_what_was_encoded(position: Position) -> None:
    """Every position comes back unchanged."""
    assert CODEC.decode(CODEC.encode(position)) == position


@given(positions, positions)
def test_encoded_positions_compare_like_positions(one: Position, other: Position) -> None:
    """The later position is the greater string, and all strings have one width."""
    first, second = CODEC.encode(one), CODEC.encode(other)
    assert (first < second) == (one < other)
    assert len(first) == len(second) == 48


def test_the_form_is_hmac_sha256_of_the_digits() -> None:
    """The signature is a plain HMAC-SHA256, so that it does not change from release to release."""
    key = hmac.digest(b"a secret of some length", b"headwater position of database-1", "sha256")
    text = CODEC.encode(Position(1 << 32, 2))
    assert text[:24] == "000000010000000000000002"
    assert text[24:] == hmac.digest(key, text[:24].encode(), "sha256").hex()[:24]


@pytest.mark.parametrize("alphabet", ["0123456789abcdef"])
@given(positions)
def test_the_form_is_safe_in_urls_and_event_ids(alphabet: str, position: Position) -> None:
    """Nothing needs escaping, and the `@` of an event's id cannot occur."""
    assert set(CODEC.encode(position)) <= set(alphabet)


@given(positions, st.integers(0, 47), st.sampled_from("0123456789abcdef"))
def test_a_changed_digit_is_refused(position: Position, place: int, digit: str) -> None:
    """No digit of the position or of its signature can be exchanged."""
    text = CODEC.encode(position)
    forged = text[:place] + digit + text[place + 1 :]
    if forged != text:
        with pytest.raises(InvalidInput):
            CODEC.decode(forged)


@pytest.mark.parametrize("foreign", [PositionCodec(b"a secret of some length", "database-2"),
                                     PositionCodec(b"another secret", "database-1")])  # fmt: skip
def test_a_position_of_another_database_or_secret_is_refused(foreign: PositionCodec) -> None:
    """A well-formed position that another codec signed is refused like a forged one."""
    with pytest.raises(InvalidInput):
        CODEC.decode(foreign.encode(Position(5, 1)))


GOOD = CODEC.encode(Position(0xABCDEF << 32, 1))


MALFORMED = [
    *("", "0", GOOD[:-1], GOOD + "0", GOOD.upper(), " " + GOOD[1:], "+" + GOOD[1:], "-" + GOOD[1:]),
    *("0_" + GOOD[2:], "é" * 48, "\0" * 48),
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_position_is_refused_with_its_place(text: str) -> None:
    """The fault is of type `position` and stands where the caller says the value was."""
    with pytest.raises(InvalidInput) as refused:
        CODEC.decode(text, "since", "position")
    (fault,) = refused.value.faults
    assert (fault.loc, fault.type) == (("since", "position"), "position")


@given(st.text(max_size=60))
def test_no_text_at_all_passes_by_chance(text: str) -> None:
    """Arbitrary text is refused, never an internal error."""
    with pytest.raises(InvalidInput):
        CODEC.decode(text)
