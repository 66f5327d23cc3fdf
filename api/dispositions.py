"""`Content-Disposition` (RFC 6266): how a browser keeps or shows what it downloads."""

from __future__ import annotations

from urllib.parse import quote

from documents import clean_filename

#: What a browser may show in place when it is asked to: pictures that can do nothing but be looked at.
SHOWN_INLINE = frozenset({"image/avif", "image/gif", "image/jpeg", "image/png", "image/webp"})

# RFC 8187, 3.2.1: attr-char beyond letters and digits.
_ATTR_CHARS = "!#$&+-.^_`|~"


def content_disposition(filename: str, *, inline: bool) -> str:
    """The header's value: `inline` or `attachment`, with the name for old readers and, where it differs, in UTF-8.

    The name is made safe again here: somebody may have written it by hand.
    """
    name = clean_filename(filename)
    kind = "inline" if inline else "attachment"
    # `%` too: some readers decode it in the plain form (RFC 6266, appendix D).
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in name)
    if plain == name:
        return f'{kind}; filename="{plain}"'
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS)}"
