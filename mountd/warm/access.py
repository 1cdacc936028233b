"""Which files an app opened at its start, in which order: a warm takes these first. How far an app that starts is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mountd.status.load import AppLoad
from mountd.warm.plan import WantedFile

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """`path` is below the version's directory, `size` in bytes; opened `after_s` seconds after the start began."""

    path: str
    size: int
    after_s: float


@dataclass(frozen=True, slots=True)
class AppStart:
    """What one app opened at its last start that succeeded, in order. `recorded`: when, UTC, ISO 8601."""

    version: str
    recorded: str
    files: tuple[OpenedFile, ...]
    partial: bool = False
    """it may have opened others: not every directory could be watched, or there were too many files"""


@dataclass(frozen=True, slots=True)
class AccessProfile:
    """Of one model, by the name of each app that needs it."""

    starts: Mapping[str, AppStart] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        return any(start.partial for start in self.starts.values())

    @property
    def files(self) -> list[OpenedFile]:
        """Of all apps, each path once, as early as the first of them opened it."""
        found: dict[str, OpenedFile] = {}
        for file in sorted((each for start in self.starts.values() for each in start.files), key=_when):
            found.setdefault(file.path, file)
        return list(found.values())

    def of_version(self, version: str) -> AccessProfile:
        """What was recorded with that version."""
        return AccessProfile({app: start for app, start in self.starts.items() if start.version == version})

    def with_start(self, app: str, start: AppStart, apps: Collection[str]) -> AccessProfile:
        """With a new start of `app`; without apps that are not among `apps`."""
        kept = {name: each for name, each in self.starts.items() if name in apps and name != app}
        return AccessProfile({**kept, app: start})


def _when(file: OpenedFile) -> float:
    return file.after_s


def order(
    files: Sequence[WantedFile],
    profile: AccessProfile | None,
    *,
    only_opened: bool = False,
    required: Collection[str] = (),
) -> list[WantedFile]:
    """Those that the profile names first, in its order, then the others as they are: by path, of whatever version.

    `only_opened` leaves those others out, but for the `required` ones. They stay when the profile does not say what
    the app needs: there is none, it is partial, or names no file of this version.
    """
    by_path = {file.path: file for file in files}
    opened = [by_path[each.path] for each in (profile.files if profile else ()) if each.path in by_path]
    first = {file.path for file in opened}
    others = [file for file in files if file.path not in first]
    if only_opened and opened and profile is not None and not profile.partial:
        others = [file for file in others if file.path in required]
    return opened + others


# -- recording --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class FileOpens:
    """Opens of one file by anybody: when the first few of them were (monotonic), and how many there were."""

    times: list[float] = field(default_factory=list)
    count: int = 0


def first_by_others(opens: FileOpens, own: Sequence[float]) -> float | None:
    """When the file was first opened by somebody else than mountd; None: never.

    `own`: when mountd's own readers were about to open it. Each of these accounts for the open that is nearest to it.
    """
    if opens.count <= len(own) or not opens.times:
        return None
    left = sorted(opens.times)
    for at in own:
        if len(left) > 1:
            left.remove(min(left, key=lambda time: abs(time - at)))
    return left[0]


def opened_files(
    seen: Mapping[str, FileOpens],
    own: Mapping[str, Sequence[float]],
    size_of: Callable[[str], int | None],
    began: float,
) -> tuple[OpenedFile, ...]:
    """What others than mountd opened since `began` (monotonic), in order. `own` is by path.

    A file without a size is left out: it is none of the version.
    """
    found = []
    for path, opens in seen.items():
        at = first_by_others(opens, own.get(path, ()))
        if at is not None and (size := size_of(path)) is not None:
            found.append(OpenedFile(path, size, round(max(0.0, at - began), 3)))
    return tuple(sorted(found, key=_when))


def directories(files: Iterable[tuple[str, int]]) -> list[str]:
    """Those that hold `files`, paths with their bytes; relative, the one with the largest file first: not all of them
    may be watched."""
    largest: dict[str, int] = {}
    for path, size in files:
        directory = path.rpartition("/")[0]
        largest[directory] = max(size, largest.get(directory, 0))
    return sorted(largest, key=lambda directory: (-largest[directory], directory))


# -- how far a start is -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenedOfModel:
    """What an app that starts has `opened` of one model, and the size in bytes, in this version, of each file that it
    opened there at its last start. `last` is empty when that is not known."""

    opened: Sequence[OpenedFile]
    last: Mapping[str, int]


def app_load(models: Sequence[OpenedOfModel]) -> AppLoad | None:
    """How far an app is with the files of its models; None: no start of it is recorded, and it has opened nothing.

    A file counts, with its whole size, once the app has opened another one: apps read one file after the other, so
    the file opened last is still being read. It may be most of the model, so it counts nothing rather than all; 100 %
    is never shown. The rate is that of the files that count, from the first open to the last: it does not fall while
    a large file is read. No time is estimated: how long the app takes after its last open is not known.

    What it did not open at its last start is left out. That start includes a few seconds after it was ready, so an app
    that loads lazily is ready at a lower percentage.
    """
    is_known = any(model.last for model in models)
    opened = sorted(((file, model) for model in models for file in model.opened), key=lambda each: each[0].after_s)
    if not opened and not is_known:
        return None
    done = [file.size for file, model in opened[:-1] if not is_known or file.path in model.last]
    took_s = opened[-1][0].after_s - opened[0][0].after_s if opened else 0.0
    totals = [size for model in models for size in model.last.values()]
    return AppLoad(
        files_done=len(done),
        bytes_done=sum(done),
        files_total=len(totals) if is_known else None,
        bytes_total=sum(totals) if is_known else None,
        bytes_per_s=round(sum(done) / took_s) if took_s > 0 else 0,
    )


# -- the kept form ----------------------------------------------------------------------------------------------------


def dump(profile: AccessProfile) -> bytes:
    starts = {
        app: {
            "version": start.version,
            "recorded": start.recorded,
            "partial": start.partial,
            "files": [[file.path, file.size, file.after_s] for file in start.files],
        }
        for app, start in profile.starts.items()
    }
    return json.dumps({"schema": SCHEMA, "starts": starts}, separators=(",", ":")).encode("ascii")


def parse(data: bytes) -> AccessProfile | None:
    """None for what `dump` did not make: torn, by another mountd, by somebody else."""
    try:
        document = json.loads(data)
        if document["schema"] != SCHEMA:
            return None
        profile = AccessProfile({app: _start(each) for app, each in document["starts"].items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
    return profile if profile.starts else None


def _start(document: Mapping[str, Any]) -> AppStart:
    version, recorded, partial = document["version"], document["recorded"], document["partial"]
    if not (isinstance(version, str) and isinstance(recorded, str) and isinstance(partial, bool)):
        raise TypeError
    return AppStart(version, recorded, tuple(_files(document["files"])), partial)


def _files(rows: Iterable[Sequence[Any]]) -> Iterable[OpenedFile]:
    for path, size, after_s in rows:
        fine = isinstance(path, str) and type(size) is int and size >= 0 and type(after_s) in (int, float)
        if not fine or not 0 <= after_s < math.inf:
            raise TypeError
        yield OpenedFile(path, size, float(after_s))
