"""Full-width punctuation where YAML needs an ASCII character: ways to put a line right, and its name."""

from __future__ import annotations

import re
from collections.abc import Iterator

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
MAX_CHARACTERS = 150_000
"""In all that is tried: about 2 s of one core. What is wrong beyond that is reported as YAML sees it."""
_ANY = re.compile(f"[{''.join(MEANT)}]")
_TEXT = re.compile(rf"[^\x00-\x7f{''.join(MEANT)}]")
_COMMENT = re.compile(r"(^|\s)#.*")
_QUOTED = re.compile(r"""(?<=[\s:,\[{：，［｛])(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')""")
_KEY = re.compile(r"(?:^|[{,｛，])[\s-]*\w[\w.-]*$")
_LONGEST_KEY = 80


def ways(rows: list[str], line: int) -> Iterator[tuple[list[str], list[Problem]]]:
    """The text with one row put right, and a problem for each kind of character that was: first what no Chinese text
    touches, then all of the row. The rows nearest to `line` (from 1) first; backwards, as YAML notices late.

    What stands in comments and in quotes stays.
    """
    suspects = [index for index, row in enumerate(rows) if _ANY.search(_bare(row))]
    for index in sorted(suspects, key=lambda index: (index >= line, abs(index + 1 - line))):
        tried = [rows[index]]
        for of_text in (False, True):
            row, found = _put_right(rows[index], of_text)
            if row not in tried:
                tried.append(row)
                yield (
                    [*rows[:index], row, *rows[index + 1 :]],
                    [
                        Problem(
                            "",
                            index + 1,
                            f"{_shown(sign)} is a full-width {MEANT[sign][1]}: write {right!r} (全角标点)",
                        )
                        for sign, right in found
                    ],
                )


def _put_right(row: str, of_text: bool) -> tuple[str, dict[tuple[str, str], None]]:
    parts, end, indent = [], 0, len(row) - len(row.lstrip())
    found: dict[tuple[str, str], None] = {}
    for match in _ANY.finditer(bare := _bare(row)):
        before, after = bare[max(0, match.start() - 1) : match.start()], bare[match.end() : match.end() + 1]
        if not of_text and (_TEXT.match(before) or _TEXT.match(after)):
            continue
        right = MEANT[match[0]][0]
        if (
            match[0] == "："
            and after.strip()
            and _KEY.search(bare[max(0, match.start() - _LONGEST_KEY) : match.start()])
        ):
            right = ": "  # it looks as if a space followed
        found[match[0], right] = None
        # As wide as it looks, or what it indents would not line up.
        parts += [row[end : match.start()], "  " if right == " " and match.start() < indent else right]
        end = match.end()
    return "".join([*parts, row[end:]]), found


def _bare(row: str) -> str:
    bare = _QUOTED.sub(lambda match: "x" * len(match[0]), row)
    return _COMMENT.sub(lambda match: " " * len(match[0]), bare)


def _shown(character: str) -> str:
    return "U+3000" if character == "\u3000" else repr(character)
