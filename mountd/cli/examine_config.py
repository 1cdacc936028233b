"""All problems of a configuration file in one pass: its text, its secrets, and its names for rclone."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mountd.cli.examine import Check
from mountd.client.api import get
from mountd.client.find import find
from mountd.errors import CannotStart, ConfigError, MountdError, Problem, Unavailable, UsageError, cause_of
from mountd.fuse import table
from mountd.fuse.watch import read_table
from mountd.i18n import M_
from mountd.process import way
from mountd.process.child import Exit
from mountd.rclone import binary as binaries
from mountd.rclone.binary import Binary
from mountd.rclone.command import advise, refuse_unknown
from mountd.settings.load import CONFIG_VARIABLE, Inspected, Loaded, check_secrets, config_path, first_problems, inspect
from mountd.settings.schema import Settings
from mountd.settings.source import Place, dotted, line_of
from mountd.settings.words import MAX_PROBLEMS, did_you_mean

ASK_S = 5.0
WAY_S = 10.0
SURE = 0.9
"""How similar a mistyped name is to a known one. No option that rclone added between 1.68 and 1.75 is that similar to
an older one (0.875 at most)."""


@dataclass(frozen=True, slots=True)
class Words:
    """Names that this rclone does not know; `warnings`: those that a newer rclone may know."""

    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def source_of(option: str | None, socket: str | None) -> Path:
    """The file that is meant: as for `mountd run`; where there is none, that of the daemon that a command would ask.

    Raises UsageError when two demos run.
    """
    path = config_path(option, os.environ)
    named = socket or os.environ.get("MOUNTD_SOCKET")
    if option or os.environ.get(CONFIG_VARIABLE) or (os.path.lexists(path) and not named):
        return path
    try:
        status = get(find(named, None), "/api/v1/status", timeout_s=ASK_S)
    except UsageError:
        raise
    except MountdError:
        return path
    source = Path(str(status.get("config", {}).get("source", "")))
    return source if source.is_absolute() else path


def examine(path: Path, *, streams: bool = False) -> Inspected:
    """As `inspect`, with the secrets read, flags without use named and, where rclone is there, its flags and options
    looked up.

    Raises ConfigError when the file cannot be read at all.
    """
    found = inspect(path, streams=streams)
    settings = found.settings
    if settings is None:
        return found
    elsewhere = settings.secrets_elsewhere()
    notes = [
        Problem(dotted(place), line_of(place, found.lines), f"{each} was not checked: systemd passes it to the unit")
        for place, each in elsewhere.items()
    ]
    secrets = check_secrets(settings, found.lines, doubtful=(*found.doubtful, *elsewhere))
    try:
        binary = binaries.find(settings.rclone.binary)
        words = unknown_words(settings, binary, found.lines, doubtful=found.doubtful)
        notes += [Problem("rclone.binary", 0, f"{binary} is used: {each}") for each in binary.passed_over]
    except UsageError as error:
        place = ("rclone", "binary")
        words = Words(problems=(Problem(dotted(place), line_of(place, found.lines), f"{error.text}: {error.hint}"),))
    except CannotStart as error:
        words = Words(warnings=(Problem("", 0, f"flags and options of rclone were not checked: {error.text}"),))
    unsafe, unchecked = _unsafe_or_unchecked(settings, found.lines)
    root = os.geteuid() == 0  # another user may run mountd, who is trusted with own files
    problems = [*found.problems, *secrets, *words.problems, *(unsafe if root else ())]
    warnings = [*found.warnings, *words.warnings, *_advice(settings, found.lines), *notes, *unchecked]
    warnings += () if root else unsafe
    return replace(found, problems=first_problems(problems), warnings=first_problems(warnings))


def broken(path: Path, error: ConfigError) -> list[Check]:
    """For `doctor`: one line for each problem of the file in `error`, all with the same hint."""
    problems = error.problems
    with contextlib.suppress(ConfigError):
        problems = [*examine(path).problems] or problems  # those of secrets and of rclone's words as well
    checks = [Check(M_("config"), "fail", f"{path}: {problem}") for problem in problems]
    return [*checks[:-1], replace(checks[-1], hint=error.hint)]


def valid(loaded: Loaded, binary: Binary | None) -> list[Check]:
    """For `doctor`: a valid file, with its warnings; a mount with a wrong flag reports that itself."""
    words = unknown_words(loaded.settings, binary, loaded.lines) if binary else Words()
    wrong = [problem for problem in words.problems if problem.path.startswith("remotes.")]
    unsafe, unchecked = _unsafe_or_unchecked(loaded.settings, loaded.lines)
    checks = [Check(M_("config"), "ok", M_("{file} is valid", file=loaded.source))] if not wrong else []
    checks += [Check(M_("config"), "fail", str(problem), M_("correct the name")) for problem in wrong]
    checks += [Check(M_("paths"), "fail", str(problem)) for problem in unsafe]
    if os.geteuid() == 0:
        unchecked += _doubtful(loaded.settings, loaded.lines)
    checks += [Check(M_("paths"), "warn", str(each)) for each in unchecked]
    return checks + [Check(M_("config"), "warn", str(warning)) for warning in (*loaded.warnings, *words.warnings)]


def _advice(settings: Settings, lines: Mapping[Place, int]) -> Iterator[Problem]:
    """Flags that do nothing on a mount, or harm; `doctor` has them from the command that rclone would get."""
    for name, mount in settings.mounts.items():
        for flag, why in advise(mount):
            place = ("mounts", name, "options", flag)
            yield Problem(dotted(place), line_of(place, lines), why)


def _unsafe_or_unchecked(settings: Settings, lines: Mapping[Place, int]) -> tuple[list[Problem], list[Problem]]:
    """Links and mount points that another user can move elsewhere; and what could not be checked."""
    if settings.allow_unsafe_paths:
        return [], []
    mounted = read_table()
    places: dict[str, Place] = {}
    for name, mount in settings.mounts.items():
        there = table.at(mounted, str(mount.path)) is not None
        places[str(mount.path.parent if there else mount.path)] = ("mounts", name, "path")
    places |= {str(model.link.parent): ("models", name, "link") for name, model in settings.models.items()}
    hint = "use a directory of root, or set allow_unsafe_paths: true where no other user can be"
    return _movable(places, lines, "is not safe: {text}; " + hint)


def _doubtful(settings: Settings, lines: Mapping[Place, int]) -> list[Problem]:
    """Own directories that another user can replace, such as a volume, or by mistake; and what could not be checked."""
    places: dict[str, Place] = {str(settings.state): ("state",), str(settings.runtime): ("runtime",)}
    places |= {str(mount.cache.dir): ("mounts", name, "cache", "dir") for name, mount in settings.mounts.items()}
    movable, unchecked = _movable(places, lines, "{text}; trust that user, or use another directory")
    return movable + unchecked


def _movable(places: Mapping[str, Place], lines: Mapping[Place, int], said: str) -> tuple[list[Problem], list[Problem]]:
    """The paths that another user can move, as `said`, where `{text}` says who; and those that could not be checked."""
    try:
        found = _look(places)
    except Unavailable as error:
        return [], [Problem("", 0, f"whether others can move paths was not checked: {error.text}")]
    movable, unchecked = [], []
    for path, text, number in found:
        where, line = dotted(places[path]), line_of(places[path], lines)
        if number is None:
            movable.append(Problem(where, line, said.format(text=text)))
        elif number != errno.ENOENT:  # what is not there yet is checked when it is made
            unchecked.append(Problem(where, line, f"whether others can move {path} was not checked: {text}"))
    return movable, unchecked


def _look(paths: Collection[str]) -> list[tuple[str, str, int | None]]:
    """What way.py says of these paths. Raises Unavailable."""
    argv = [sys.executable, "-I", "-S", way.__file__, *paths]
    try:
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")
        out, err = child.communicate(timeout=WAY_S)
        if child.returncode:
            said = err.strip().rpartition("\n")[2] or Exit(child.returncode)
            raise Unavailable(f"cannot check paths: {said}")
        return way.found(out)
    except subprocess.TimeoutExpired:
        child.kill()  # without waiting: on a hung mount it may not exit
        raise Unavailable(f"cannot check paths: no answer in {WAY_S:g} s") from None
    except OSError as error:
        raise Unavailable(f"cannot check paths: {cause_of(error)}") from None
    except ValueError:
        raise Unavailable("cannot check paths: the answer is no list of them") from None


def unknown_words(
    settings: Settings, binary: Binary, lines: Mapping[Place, int], *, doubtful: Collection[Place] = ()
) -> Words:
    """Flags of mounts and options of remotes that `binary` does not have; none at the `doubtful` places."""
    places = {dotted(place): line for place, line in lines.items()}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for name, mount in settings.mounts.items():
        if len(problems) > MAX_PROBLEMS:
            break
        try:
            refuse_unknown(name, mount, binary)
        except ConfigError as error:
            problems += (Problem(each.path, places.get(each.path, 0), each.text) for each in error.problems)
    for place, text, sure in _options(settings, binary):
        if place not in doubtful:
            (problems if sure else warnings).append(Problem(dotted(place), line_of(place, lines), text))
        if len(problems) + len(warnings) > 2 * MAX_PROBLEMS:
            break
    return Words(tuple(problems), tuple(warnings))


def _options(settings: Settings, binary: Binary) -> Iterator[tuple[Place, str, bool]]:
    """For each remote what rclone does not know: place, text, and whether it is certainly wrong."""
    by_type = {backend.replace(" ", ""): options for backend, options in binary.known_options.items()}
    for name, remote in settings.remotes.items():
        known = by_type.get(remote.type)
        if known is None:
            meant = did_you_mean(remote.type, sorted(by_type))
            yield ("remotes", name, "type"), f"{binary} has no backend {remote.type!r}{meant}", False
            continue
        for option in remote.options:
            if option not in known:
                sure = bool(difflib.get_close_matches(option, known, 1, SURE))
                meant = did_you_mean(option, sorted(known)) or ": it is ignored"
                yield ("remotes", name, option), f"{binary} has no option {option!r} for {remote.type}{meant}", sure
