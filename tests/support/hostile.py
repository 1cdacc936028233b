"""Text that a bucket, an app or a file system may hold, and that nobody may meet raw."""

from __future__ import annotations

import unicodedata

CONTROLS = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
REORDERING = "\u061c\u200e\u200f\u202a\u202e\u2066\u2069\u2028\u2029"
HOSTILE = f"声音\n\tb\x1b[2J\x1b]0;title\x07\x9b31m\r\ud800x\udcff{REORDERING}{CONTROLS}"
BAD_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}


def raw_controls(text: str) -> list[str]:
    """What a terminal would obey in it, as escapes; line ends and tabs are fine."""
    return [
        f"U+{ord(each):04x}"
        for each in text
        if each not in "\n\t" and (unicodedata.category(each) in BAD_CATEGORIES or each in REORDERING)
    ]
