"""Writes the file of `mountd init`, over another one only with --force, and removes it again.

The first lines of the file hold what an undo needs: a digest of the rest, which shows an edit, the files of keys that
were written with it, and the names under which previous files were kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from mountd.cli.draft import KEY_FILES
from mountd.errors import Refused, Unavailable, cause_of
from mountd.i18n import M_
from mountd.rclone import private_file
from mountd.settings.plain_file import read_plain
from mountd.settings.source import MAX_BYTES

_MARK = "# Written by `mountd init`; `mountd init --undo` takes it back while it is unchanged. "
_HEAD = re.compile(re.escape(_MARK) + r"sha256 ([0-9a-f]{64})\n")
_WITH = "# Undoing removes: "
_BEFORE = "# Undoing brings back: "
_ASIDE = ".before-init"
_AFTER_NAME = re.compile(re.escape(_ASIDE) + r"(-[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Undone:
    """`restored`: the previous files, which are back."""

    removed: tuple[Path, ...]
    restored: tuple[Path, ...]


def sealed(text: str, files: tuple[str, ...] = (), before: tuple[str, ...] = ()) -> str:
    """The file with the lines that an undo needs; `files` and `before` are names in its own directory."""
    for name in before:
        text = f"{_BEFORE}{name}\n{text}"
    if files:
        text = f"{_WITH}{' '.join(files)}\n{text}"
    return f"{_MARK}sha256 {hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def refuse_existing(files: Collection[Path], *, undo: str) -> None:
    """Raises Refused when one of these files is there; `undo`: how the reader gets rid of what init wrote."""
    for each in files:
        if os.path.lexists(each):
            hint = M_("keep it, or replace it with --force; to remove what init wrote: {command}", command=undo)
            raise Refused(M_("cannot write {file}: it exists already", file=each), hint=hint)


def write(path: Path, text: str, keys: Mapping[Path, str], *, over: Collection[Path]) -> dict[Path, Path]:
    """Writes the keys (0600), then the file. Those of `over` that are there are kept under other names → these names.

    A key that is there already, and the same, is not touched, and so not removed by undoing. Raises Refused when
    another file has appeared meanwhile, Unavailable or CannotStart when the disk does not take it.
    """
    before: dict[Path, Path] = {}
    written = []
    try:
        os.makedirs(path.parent, mode=0o755, exist_ok=True)
        for key in keys:
            if key not in over and os.path.lexists(key):
                raise FileExistsError(None, None, str(key))
        for key, secret in keys.items():
            aside = _set_aside(key) if os.path.lexists(key) else None
            if private_file.replace(key, f"{secret}\n"):
                written.append(key.name)
                before |= {key: aside} if aside else {}
            elif aside:
                os.unlink(aside)
        replaces = path in over and os.path.lexists(path)
        if replaces:
            before[path] = _set_aside(path)
        _create(path, sealed(text, (*written,), tuple(each.name for each in before.values())), over=replaces)
    except FileExistsError as error:
        there = error.filename if error.filename in map(str, keys) else path
        text = M_("cannot write {file}: it exists already", file=there)
        raise Refused(text, hint=M_("look at it; somebody just wrote it")) from None
    except OSError as error:
        text = M_("cannot write {file}: {cause}", file=path, cause=cause_of(error))
        facts = {"place": path.parent, "uid": os.geteuid()}
        hint = M_("make {place} writable for uid {uid}, or name another file with -c", **facts)
        raise Unavailable(text, hint=hint) from None
    return before


def undo(path: Path, *, force: bool) -> Undone:
    """Removes what `write` made, and brings back what was there before. Raises Refused, Unavailable."""
    try:
        content = read_plain(path, MAX_BYTES).decode()
        head = _HEAD.match(content)
        if head is None:
            text = M_("cannot undo: {file} was not written by mountd init", file=path)
            raise Refused(text, hint=M_("remove it yourself if it may go"))
        rest = content[head.end() :]
        if hashlib.sha256(rest.encode()).hexdigest() != head[1] and not force:
            text = M_("cannot undo: {file} was changed since mountd init wrote it", file=path)
            raise Refused(text, hint=M_("--force removes it all the same, with your changes"))
        files, before = _named_in(rest, path)
        removed, restored = [], []
        for each in (*files, path):
            if each in before and os.path.lexists(before[each]):
                os.replace(before[each], each)
                restored.append(each)
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(each)
                removed.append(each)
        return Undone(tuple(sorted(removed, key=lambda each: each != path)), tuple(restored))
    except (OSError, UnicodeDecodeError) as error:
        cause = cause_of(error) if isinstance(error, OSError) else M_("it is no text")
        text = M_("cannot undo {file}: {cause}", file=path, cause=cause)
        raise Unavailable(text, hint=M_("name the file that init wrote with -c")) from None


def _named_in(rest: str, path: Path) -> tuple[list[Path], dict[Path, Path]]:
    """The keys to remove, and where the files of before are; of names that init gives alone, as anybody may have
    written it."""
    files: list[Path] = []
    before = {}
    for line in rest.splitlines()[: 1 + len(KEY_FILES) + 1]:
        if line.startswith(_WITH):
            files = [path.parent / each for each in line.removeprefix(_WITH).split() if each in KEY_FILES]
        elif line.startswith(_BEFORE):
            aside = line.removeprefix(_BEFORE)
            for name in (path.name, *KEY_FILES):
                if aside.startswith(name) and _AFTER_NAME.fullmatch(aside.removeprefix(name)):
                    before[path.parent / name] = path.parent / aside
    return files, before


def _set_aside(path: Path) -> Path:
    """Under a second name that is free; at its own it stays until another one takes its place."""
    for number in count(1):
        name = path.with_name(f"{path.name}{_ASIDE}{f'-{number}' if number > 1 else ''}")
        with contextlib.suppress(FileExistsError):
            os.link(path, name, follow_symlinks=False)
            return name
    raise AssertionError


def _create(path: Path, text: str, *, over: bool) -> None:
    """At once as a whole, readable by everybody; in the place of another one only if `over`. Raises FileExistsError,
    OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        if over:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    private_file.sync(path.parent)
