"""The files that the configuration requires of a version: which are not there, and what may have been meant."""

from __future__ import annotations

import difflib
import heapq
import unicodedata
from collections.abc import Collection, Mapping, Sequence

MAX_FILES = 2000
"""mountd looks for a similar name among so many files at most."""
MAX_SOUGHT = 3
MAX_COMPARED = 60
MAX_CHARACTERS = 100
"""For how many missing files it looks, with how many names it compares each, and how long these may be: a comparison of
two long names that are alike takes milliseconds, and the daemon does nothing else meanwhile."""
LIKE = 0.8


def problems(required: Sequence[str], files: Mapping[str, int], named: Collection[str]) -> list[str]:
    """`files`: path → size of what is there; `named`: what its manifest names, which is no mistake of `required`."""
    missing = [path for path in required if path not in files]
    sought = [path for path in missing if path not in named][:MAX_SOUGHT]
    meant = _meant(sought, files)
    found = [f"{path} is missing{meant.get(path, '')}" for path in missing]
    return found + [f"{path} is empty" for path in required if files.get(path) == 0]


def misnamed(required: Sequence[str], files: Mapping[str, int], named: Collection[str]) -> list[str]:
    """Those that neither are there nor belong to the version, if its manifest is to be believed."""
    return [path for path in required if path not in files and path not in named]


def _meant(missing: Sequence[str], files: Mapping[str, int]) -> dict[str, str]:
    """Each missing path → what may have been meant, as text."""
    if not missing:
        return {}
    few = len(files) <= MAX_FILES
    composed = {unicodedata.normalize("NFC", each) for each in files} if few else set()
    meant = {}
    for path in missing:
        below = f"{path}/"
        if any(each.startswith(below) for each in files):
            meant[path] = ": it is a directory, name a file in it"
        elif unicodedata.normalize("NFC", path) in composed:
            meant[path] = ": the same name is there in another Unicode form (NFC and NFD differ, as macOS writes them)"
        elif few and (close := difflib.get_close_matches(path, _nearest(path, files), 1, LIKE)):
            meant[path] = f", did you mean {close[0]!r}?"
    return meant


def _nearest(path: str, files: Collection[str]) -> list[str]:
    """The names to compare with: first those in the same directory, then those with the same last part."""
    if len(path) > MAX_CHARACTERS:
        return []
    directory, _, last = path.rpartition("/")

    def distance(other: str) -> tuple[bool, bool, int]:
        its_directory, _, its_last = other.rpartition("/")
        return its_directory != directory, its_last != last, abs(len(other) - len(path))

    return heapq.nsmallest(MAX_COMPARED, (each for each in files if len(each) <= MAX_CHARACTERS), distance)
