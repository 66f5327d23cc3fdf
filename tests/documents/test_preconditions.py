"""`If-Match` and `If-None-Match`: parsing and deciding."""

from __future__ import annotations

import pytest

from documents import NO_PRECONDITIONS, InvalidInput, Preconditions, Stale, parse_tags


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        "a",
        '"a',
        'a"',
        '"a" "b"',
        '"a";"b"',
        "*,*",
        '"a", *',
        "W/",
        'w/"a"',
        '"a b"',
        "'a'",
        ',"a"',
        '"\x7f"',
    ],
)
def test_a_malformed_header_is_refused(header: str) -> None:
    """The header is named."""
    with pytest.raises(InvalidInput) as refused:
        parse_tags(header, "If-Match")
    assert refused.value.faults[0].loc == ("header", "If-Match")


def test_well_formed_headers() -> None:
    """Lists, the star, and `W/` that a proxy put before a tag."""
    assert parse_tags(None, "If-Match") is None
    assert parse_tags(" * ", "If-Match") == ()
    assert parse_tags('"a"', "If-Match") == ('"a"',)
    assert parse_tags(' W/"a" , "b,c" ,W/"" ', "If-Match") == ('"a"', '"b,c"', '""')


def test_what_holds_for_a_document() -> None:
    """If-Match wants one of its tags or any document; If-None-Match none of them."""
    NO_PRECONDITIONS.check('"a"')
    Preconditions(if_match=()).check('"a"')
    Preconditions(if_match=('"b"', '"a"')).check('"a"')
    Preconditions(if_none_match=('"b"',)).check('"a"')
    for stale in (
        Preconditions(if_match=('"b"',)),
        Preconditions(if_none_match=()),
        Preconditions(if_none_match=('"b"', '"a"')),
        Preconditions(if_match=('"a"',), if_none_match=('"a"',)),
    ):
        with pytest.raises(Stale):
            stale.check('"a"')


def test_what_a_reader_knows() -> None:
    """If-None-Match on GET: the tag, or any."""
    assert Preconditions(if_none_match=()).is_known('"a"')
    assert Preconditions(if_none_match=('"a"',)).is_known('"a"')
    assert not Preconditions(if_none_match=('"b"',)).is_known('"a"')
    assert not Preconditions(if_match=('"a"',)).is_known('"a"')
    assert not NO_PRECONDITIONS
    assert Preconditions(if_none_match=()).must_be_absent
    assert not Preconditions(if_match=()).must_be_absent
