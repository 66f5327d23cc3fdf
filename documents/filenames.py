"""Names that uploaded files come with, made safe for whoever shows them or saves under them."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_LENGTH: Final = 255
NAMELESS: Final = "file"

#: Controls, line separators, marks that turn the direction of writing (`gpj.exe` reads as `exe.jpg`), and what is no
#: character at all. Joiners stay: scripts and emoji need them.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)


def clean_filename(given: str) -> str:
    """`given` without folders, quotes, controls and marks of direction; never empty, `.` or `..`.

    At most 255 characters, of which the end with its extension is kept. The same name again gives itself.
    """
    name = _INVISIBLE.sub("", unicodedata.normalize("NFC", given)).replace('"', "")
    name = re.split(r"[/\\]", name)[-1].strip()
    if len(name) > MAX_LENGTH:
        stem, dot, extension = name.rpartition(".")
        kept = dot + extension if stem and len(extension) <= 20 else ""
        name = name[: MAX_LENGTH - len(kept)].rstrip() + kept
    return NAMELESS if name.strip(". ") == "" else name
