"""Chinese punctuation where YAML's own was meant: found by putting it right and seeing whether that mends something."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

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
"""In all that is tried: about 2 s of one core. What is wrong beyond that is told as YAML sees it."""
_ANY = re.compile(f"[{''.join(MEANT)}]")
_COMMENT = re.compile(r"(^|\s)#.*")
_QUOTED = re.compile(r"""(?<=[\s:,\[{])(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')""")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a text came to: all that is wrong, or when it is not `readable`, the first thing that makes it so."""

    readable: bool
    problems: Sequence[Problem]


def mend(text: str, examine: Callable[[str], Verdict]) -> tuple[str, list[Problem]]:
    """The text, put right wherever that leaves less wrong, and a problem for each character that had to be.

    Chinese text in comments, in quotes and wherever else it does no harm stays as it is and is not mentioned.
    """
    rows = text.split("\n")
    found: list[Problem] = []
    if not _ANY.search(text):
        return text, found
    budget, before = MAX_CHARACTERS // len(text), examine(text)
    while before.problems and budget > 0:
        step, tries = _step(rows, before, examine, budget)
        budget -= tries
        if step is None:
            break
        found += _problems(step.index, step.way)
        rows, before = step.rows, step.verdict
    return "\n".join(rows), found


@dataclass(frozen=True, slots=True)
class _Step:
    """One line put right, and what the text came to with it."""

    index: int
    way: Mapping[str, str]
    rows: list[str]
    verdict: Verdict


def _step(rows: list[str], before: Verdict, examine: Callable[[str], Verdict], budget: int) -> tuple[_Step | None, int]:
    """The best way to put the first line right for which there is one, and how many ways were tried."""
    tries = 0
    for index in _nearest(rows, before.problems[0].line - 1):
        better: list[_Step] = []
        for way in _ways(rows[index]):
            tries += 1
            mended = [*rows[:index], _put_right(rows[index], way), *rows[index + 1 :]]
            after = examine("\n".join(mended))
            if _is_better(before, after):
                better.append(_Step(index, way, mended, after))
        if better:
            return min(better, key=lambda each: _how_bad(each.verdict)), tries
        if tries >= budget:
            break
    return None, tries


def _nearest(rows: list[str], line: int) -> list[int]:
    """Lines that may be the cause, nearest to the first problem first; backwards, as YAML notices late."""
    suspects = [index for index, row in enumerate(rows) if any(True for _ in _positions(row))]
    return sorted(suspects, key=lambda index: (index > line, abs(index - line)))


def _ways(row: str) -> Iterator[dict[str, str]]:
    """To put a line right: what would stand there for each character; one kind of them, then all."""
    there = dict.fromkeys(row[position] for position in _positions(row))
    kinds = dict.fromkeys(MEANT[character][1] for character in there)
    ways = [{each: MEANT[each][0] for each in there if MEANT[each][1] == kind} for kind in kinds]
    for way in ways if len(ways) == 1 else [*ways, {each: MEANT[each][0] for each in there}]:
        yield way
        if "：" in way and re.search(r"：\S", row):  # it looks as if a space followed
            yield {**way, "：": ": "}


def _how_bad(verdict: Verdict) -> tuple[int, int]:
    return (0, len(verdict.problems)) if verdict.readable else (1, -verdict.problems[0].line)


def _is_better(before: Verdict, after: Verdict) -> bool:
    if not before.readable or not after.readable:
        return _how_bad(after) < _how_bad(before)
    gone = {(each.path, each.line) for each in before.problems} - {(each.path, each.line) for each in after.problems}
    return bool(gone) and len(after.problems) <= len(before.problems)


def _problems(index: int, way: Mapping[str, str]) -> list[Problem]:
    return [
        Problem("", index + 1, f"{_shown(each)} is a full-width {MEANT[each][1]}: write {right!r} (全角标点)")
        for each, right in way.items()
    ]


def _shown(character: str) -> str:
    return "U+3000" if character == "\u3000" else repr(character)


def _put_right(row: str, right: Mapping[str, str]) -> str:
    start = len(row) - len(row.lstrip())
    parts, end = [], 0
    for position in _positions(row):
        character = row[position]
        # As wide as it looks, or what it indents would not line up.
        meant = "  " if character == "\u3000" and position < start else right.get(character, character)
        parts += [row[end:position], meant]
        end = position + 1
    return "".join(parts) + row[end:]


def _positions(row: str) -> Iterator[int]:
    """Where such a character stands outside of quotes and comments, as far as a line by itself can tell."""
    bare = _QUOTED.sub(lambda match: "x" * len(match[0]), row)
    bare = _COMMENT.sub(lambda match: " " * len(match[0]), bare)
    return (match.start() for match in _ANY.finditer(bare))
