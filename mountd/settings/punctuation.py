"""Full-width punctuation that stands where YAML needs an ASCII character: put right, and named."""

from __future__ import annotations

import re

from mountd.errors import Problem

MEANT = {
    "：": (":", "colon"),
    "，": (",", "comma"),
    "“": ('"', "quote"),
    "”": ('"', "quote"),
    "＂": ('"', "quote"),
    "‘": ("'", "quote"),
    "’": ("'", "quote"),
    "＇": ("'", "quote"),
    "［": ("[", "bracket"),
    "］": ("]", "bracket"),
    "【": ("[", "bracket"),
    "】": ("]", "bracket"),
    "｛": ("{", "brace"),
    "｝": ("}", "brace"),
    "\u3000": (" ", "space"),
}
_TEXT = rf"[^\x00-\x7f{''.join(MEANT)}]"
_SIGN = re.compile(rf"(?<!{_TEXT})[{''.join(MEANT)}](?P<text>(?={_TEXT}))?")
_COMMENT = re.compile(r"(^|\s)#.*")
_QUOTED = re.compile(r"""(?<=[\s:,\[{：，［｛])(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')""")
_KEY = re.compile(r"(?:^|[{,｛，])[\s-]*\w[\w.-]*$")
_LONGEST_KEY = 80


def mend(text: str) -> tuple[str, list[Problem]]:
    """The text, put right, and a problem for each character that had to be, once a line.

    A character that Chinese text touches is taken for a part of it and stays, and so is all in comments and quotes;
    but a colon behind a key ends it, whatever follows.
    """
    rows = text.split("\n")
    found: dict[tuple[int, str, str], None] = {}
    for index, row in enumerate(rows):
        bare = _QUOTED.sub(lambda match: "x" * len(match[0]), row)
        bare = _COMMENT.sub(lambda match: " " * len(match[0]), bare)
        parts, end, indent = [], 0, len(row) - len(row.lstrip())
        for match in _SIGN.finditer(bare):
            right = _right(bare, match.start())
            if match["text"] is not None and right != ": ":
                continue
            found[index + 1, match[0], right] = None
            # As wide as it looks, or what it indents would not line up.
            parts += [row[end : match.start()], "  " if right == " " and match.start() < indent else right]
            end = match.end()
        rows[index] = "".join([*parts, row[end:]])
    return "\n".join(rows), [
        Problem("", line, f"{_shown(sign)} is a full-width {MEANT[sign][1]}: write {right!r} (全角标点)")
        for line, sign, right in found
    ]


def _right(row: str, at: int) -> str:
    """What should stand there; after a key also the space that a full-width colon looks as if it had."""
    is_key = row[at] == "：" and row[at + 1 : at + 2].strip() and _KEY.search(row[max(0, at - _LONGEST_KEY) : at])
    return ": " if is_key else MEANT[row[at]][0]


def _shown(character: str) -> str:
    return "U+3000" if character == "\u3000" else repr(character)
