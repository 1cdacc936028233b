"""Finds English in what a Chinese command line has printed, where the catalogue has a translation of it."""

from __future__ import annotations

import re
import string
from functools import cache

from mountd.i18n import CHINESE, translation

LEAST_WORDS = 3
"""Of a message, besides its values: fewer may be a part of a name, a command or a text from elsewhere."""


@cache
def _sentences() -> dict[str, re.Pattern[str]]:
    """English message → what it looks like with values in it."""
    found = {}
    for message, translated in translation(CHINESE).messages().items():
        try:
            parts = [text for text, *_field in string.Formatter().parse(message)]
        except ValueError:
            continue
        words = re.findall(r"[A-Za-z]{2,}", " ".join(parts))
        if len(words) >= LEAST_WORDS and translated != message:
            found[message] = re.compile(".+?".join(map(re.escape, parts)))
    return found


def english(output: str) -> list[str]:
    """The messages that stand in `output` although they have a translation."""
    return [message for message, looks in _sentences().items() if looks.search(output)]
