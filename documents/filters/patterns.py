"""The regular expressions of `$contains` and `$startswith`.

The same source text goes into MongoDB's query and into Python's `re`. PCRE and `re` fold case differently
(`ß`, `İ`, the Kelvin sign), so the `i` option is not used: every character becomes an explicit class of its
simple case variants, and the two engines agree because nothing is left for them to decide.
"""

from __future__ import annotations

from documents.errors import FilterRefused

#: The embedded database takes no longer pattern (MongoDB takes 32 KB). A letter becomes four characters of one.
MAX_PATTERN = 1_000
#: So that two texts, as `$contains` and `$startswith` of one field, still fit.
MAX_TEXT = 480

_SPECIAL = frozenset("\\^$.|?*+()[]{}")


def contains_pattern(text: str) -> str:
    """A regular expression that finds `text` literally, in either case, anywhere in a string."""
    return "".join(map(_any_case, text))


def startswith_pattern(text: str) -> str:
    """Like `contains_pattern`, at the start of the string only (`^` lets MongoDB use an index's bounds)."""
    return "^" + contains_pattern(text)


def all_patterns(patterns: list[str]) -> str:
    """One regular expression for strings in which all of `patterns`, built by this module, are found.

    Raises FilterRefused when they are too long together.
    """
    if len(patterns) == 1:
        return patterns[0]
    together = "^" + "".join(
        f"(?={pattern[1:]})" if pattern.startswith("^") else f"(?=[\\s\\S]*{pattern})" for pattern in patterns
    )
    if len(together) > MAX_PATTERN:
        raise FilterRefused.at("filter", msg="the texts that are looked for in one field are too long", type="too_long")
    return together


def _any_case(character: str) -> str:
    variants = {v for v in (character, character.lower(), character.upper()) if len(v) == 1}
    if len(variants) > 1:
        return f"[{''.join(sorted(variants))}]"
    return "\\" + character if character in _SPECIAL else character
