"""The files that the configuration requires of a version: which are not there, and what may have been meant."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Mapping, Sequence

MAX_FILES = 2000
"""Among more, nobody looks for a name that is like one."""
LIKE = 0.8


def problems(required: Sequence[str], files: Mapping[str, int], named: Collection[str]) -> list[str]:
    """`files`: path → size of what is there; `named`: what its manifest names, which is no mistake of `required`."""
    missing = [path for path in required if path not in files]
    found = [f"{path} is missing{'' if path in named else _meant(path, files)}" for path in missing]
    return found + [f"{path} is empty" for path in required if files.get(path) == 0]


def misnamed(required: Sequence[str], files: Mapping[str, int], named: Collection[str]) -> list[str]:
    """Those that neither are there nor belong to the version, if its manifest is to be believed."""
    return [path for path in required if path not in files and path not in named]


def _meant(path: str, files: Mapping[str, int]) -> str:
    if any(each.startswith(f"{path}/") for each in files):
        return ": it is a directory, name a file in it"
    if len(files) > MAX_FILES:
        return ""
    alike = {unicodedata.normalize("NFC", each): each for each in files}
    if unicodedata.normalize("NFC", path) in alike:
        return ": the same name is there in another Unicode form (NFC and NFD differ, as macOS writes them)"
    close = difflib.get_close_matches(path, files, 1, LIKE)
    return f", did you mean {close[0]!r}?" if close else ""
