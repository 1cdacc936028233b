"""A file → Settings: defaults filled in, and every problem of the file at once, each with its place and line."""

from __future__ import annotations

import copy
import errno
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mountd import container
from mountd.errors import CannotStart, ConfigError, Problem, cause_of
from mountd.settings import http_files, punctuation, stores
from mountd.settings.checks import SECTIONS, check
from mountd.settings.options import settle
from mountd.settings.plain_file import read_plain
from mountd.settings.schema import Settings
from mountd.settings.source import MAX_BYTES, BadSource, Place, decode, dotted, line_of, read
from mountd.settings.validate import is_below, validate
from mountd.settings.words import MAX_PROBLEMS, Finding
from mountd.text import storable

DEFAULT_CONFIG = Path("/etc/mountd/mountd.yaml")
CONFIG_VARIABLE = "MOUNTD_CONFIG"
MAX_TEXT = 500
"""Characters of one problem, which may repeat what was written."""
_MORE = Problem("", 0, f"only the first {MAX_PROBLEMS} problems are shown: correct them and check again")
_MAY_BE_EMPTY = {
    "": ("models", "apps", "outbox", "rclone", "http", "notify", "log", "control", "state", "runtime"),
    "mounts": ("options", "health", "cache"),
    "apps": ("environment", "needs", "preflight", "ready", "stop", "restart", "limits"),
    "models": ("required", "warm", "sync", "watch", "gates"),
}


@dataclass(frozen=True, slots=True)
class Places:
    """Where mountd keeps its things when the file does not say."""

    state: Path
    cache: Path
    runtime: Path


@dataclass(frozen=True, slots=True)
class Loaded:
    """`lines`: place → 1-based line in `source`, for problems that show only later."""

    settings: Settings
    warnings: tuple[Problem, ...]
    source: Path
    lines: Mapping[Place, int] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Inspected:
    """All that is wrong in a text, sorted by line, and what can be made of the rest.

    With problems, `settings` are for further checks alone: what is broken is a default or a stand-in in them, and
    `doubtful` are the places where that is so, or where something else is wrong.
    """

    settings: Settings | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
    lines: Mapping[Place, int] = field(default_factory=dict, repr=False)
    doubtful: tuple[Place, ...] = ()


def config_path(option: str | Path | None, environ: Mapping[str, str]) -> Path:
    """`-c`, else $MOUNTD_CONFIG, else /etc/mountd/mountd.yaml."""
    return Path(option or environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)


def places(euid: int, environ: Mapping[str, str]) -> Places:
    """The directories that systemd made for the unit; else those of the system for root, and the XDG ones for others;
    without a home, below a private /tmp/mountd-UID."""
    private = Path(f"/tmp/mountd-{euid}")  # noqa: S108 - `process/directories.py` makes it 0700 and refuses a stranger's

    def find(unit: str, system: str, variable: str, below_home: str, otherwise: Path) -> Path:
        given = environ.get(unit, "").partition(":")[0]  # the first of several is the unit's main one
        if given.startswith("/"):
            return Path(given)
        if euid == 0:
            return Path(system)
        if environ.get(variable, "").startswith("/"):
            return Path(environ[variable], "mountd")
        home = environ.get("HOME", "")
        return Path(home, below_home, "mountd") if below_home and home.startswith("/") else otherwise

    return Places(
        state=find("STATE_DIRECTORY", "/var/lib/mountd", "XDG_STATE_HOME", ".local/state", private / "state"),
        cache=find("CACHE_DIRECTORY", "/var/cache/mountd", "XDG_CACHE_HOME", ".cache", private / "cache"),
        runtime=find("RUNTIME_DIRECTORY", "/run/mountd", "XDG_RUNTIME_DIR", "", private),
    )


def load(path: Path, *, places: Places | None = None, streams: bool = False) -> Loaded:
    """Reads and checks a file; secrets are not read (see `check_secrets`). Raises ConfigError with all problems.

    `streams`: also a pipe such as /dev/stdin, which somebody at a terminal can end; a daemon would wait for ever.
    """
    return parse(read_text(path, streams=streams), str(path), places or _places_here())


def inspect(path: Path, *, streams: bool = False) -> Inspected:
    """As `load`, but returns what is wrong. Raises ConfigError when the file cannot be read at all."""
    return inspect_text(read_text(path, streams=streams), _places_here())


def read_text(path: Path, *, streams: bool = False) -> str:
    """Raises ConfigError."""
    try:
        return decode(_read_stream(path) if streams else read_plain(path, MAX_BYTES))
    except OSError as error:
        cause = cause_of(error)
        hint = f"copy config/mountd.yaml to {path} and edit it, or name another file: mountd config check -c FILE"
        if isinstance(error, FileNotFoundError) and (flag := container.for_configuration(path)):
            hint = f"{flag}; {hint}"
        if isinstance(error, IsADirectoryError):
            hint = f"name the file in it: mountd config check -c {path / 'mountd.yaml'}"
        elif isinstance(error, PermissionError):
            hint = f"let uid {os.geteuid()} read it, or name another file: mountd config check -c FILE"
        elif error.errno == errno.EINVAL:
            hint = "mountd reads its configuration again while it runs: write it to a file"
        raise ConfigError(str(path), [Problem("", 0, cause)], hint=hint) from None
    except BadSource as error:
        raise ConfigError(str(path), [error.problem]) from None


def _read_stream(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def parse(text: str, name: str, places: Places) -> Loaded:
    """The text of the file called `name` → settings. Pure. Raises ConfigError with all problems, sorted by line."""
    found = inspect_text(text, places)
    if found.problems or found.settings is None:
        raise ConfigError(name, [*found.problems])
    return Loaded(found.settings, found.warnings, Path(name), found.lines)


def inspect_text(text: str, places: Places) -> Inspected:
    """Pure."""
    found = _inspect(text, places)
    rows, typos, budget = text.split("\n"), list[Problem](), punctuation.MAX_CHARACTERS // max(1, len(text))
    while found.problems and budget > 0:
        for corrected, names in islice(punctuation.ways(rows, found.problems[0].line), budget):
            budget -= 1
            after = _inspect("\n".join(corrected), places)
            if _is_better(after, found):
                rows, found, typos = corrected, after, [*typos, *names]
                break
        else:
            break
    return replace(found, problems=first_problems([*found.problems, *typos])) if typos else found


def _is_better(after: Inspected, before: Inspected) -> bool:
    """Of a text of which nothing can be made only the first problem is known, and no lines."""
    if after.lines and before.lines:
        left = {(each.path, each.line) for each in after.problems}
        is_gone = any((each.path, each.line) not in left for each in before.problems)
        return is_gone and len(after.problems) <= len(before.problems)
    return bool(after.lines) or (not before.lines and after.problems[0].line > before.problems[0].line)


def _inspect(text: str, places: Places) -> Inspected:
    try:
        document = read(text)
    except BadSource as error:
        return Inspected(None, (error.problem,))
    if not isinstance(document.data, dict):
        return Inspected(None, (Problem("", 1, "must be a mapping of keys: remotes, mounts, models, apps …"),))
    data, lines = copy.deepcopy(document.data), dict(document.lines)
    findings: list[Finding] = []
    _fill_in(data, places)
    for name, remote in _entries(data, "remotes").items():
        findings += stores.settle(name, remote)
    for name, mount in _entries(data, "mounts").items():
        if isinstance(mount.get("options"), dict):
            findings += settle(name, mount, lines)
    settings, more, replaced = validate(data, partial(_fill_in, places=places))
    findings += more
    if settings is not None:
        judged = {finding.place for finding in more}
        known = {section: [*_mapping(document.data, section)] for section in SECTIONS}
        contradictions = _first_problems_and_warnings(check(settings, known))
        findings += [each for each in contradictions if each.place not in judged and not is_below(each.place, replaced)]
    problems = {*document.problems, *(_problem(finding, lines) for finding in findings if not finding.warning)}
    warnings = first_problems(_problem(finding, lines) for finding in findings if finding.warning)
    doubtful = (*replaced, *(finding.place for finding in findings if not finding.warning))
    return Inspected(settings, first_problems(problems), warnings, lines, doubtful)


def check_secrets(
    settings: Settings, lines: Mapping[Place, int] | None = None, *, doubtful: Collection[Place] = ()
) -> list[Problem]:
    """Reads every secret that is referred to; a problem names the place it should be at, never what is there.

    `doubtful`: places that are wrong already; a file may lie on a mount there, and is not touched.
    """
    problems = []
    for place, reference in settings.secrets():
        if any(each[: len(place)] == place for each in doubtful):
            continue
        try:
            secret = reference.read()
        except CannotStart as error:
            text = f"{error.text}; {error.hint}"
        else:
            if place[0] != "remotes" or not re.search(r"[\x00-\x1f\x7f]", secret):
                continue
            text = f"the secret in {reference} has more than one line, which rclone.conf cannot hold"
        problems.append(_problem(Finding(place, text), lines or {}))
        if len(problems) > MAX_PROBLEMS:
            break
    judged = {problem.path for problem in problems}
    if not any(each[0] == "http" for each in doubtful) and not any(path.startswith("http.") for path in judged):
        for place, failure in http_files.problems(settings.http):
            problems.append(_problem(Finding(place, f"{failure.text}; {failure.hint}"), lines or {}))
    return problems


def _places_here() -> Places:
    return places(os.geteuid(), os.environ)


def _problem(finding: Finding, lines: Mapping[Place, int]) -> Problem:
    return Problem(dotted(finding.place), line_of(finding.place, lines), storable(finding.text, MAX_TEXT))


def first_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sorted by line, each once, MAX_PROBLEMS of them: somebody has to read them, and status holds them."""
    found = sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.path, problem.text))
    known = [each for each in found if each != _MORE]
    return tuple(found) if len(known) <= MAX_PROBLEMS else (_MORE, *known[:MAX_PROBLEMS])


def _first_problems_and_warnings(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Up to one problem more than are shown, and the warnings on the way."""
    problems = 0
    for finding in findings:
        problems += not finding.warning
        yield finding
        if problems > MAX_PROBLEMS:
            return


def _fill_in(data: dict[str, Any], places: Places) -> None:
    """Takes out empty sections, and puts in the paths that hang on other keys or on the user."""
    for section, keys in _MAY_BE_EMPTY.items():
        for entry in _entries(data, section).values() if section else [data]:
            for key in keys:
                if key in entry and entry[key] is None:
                    del entry[key]
    data.setdefault("state", str(places.state))
    runtime = data.setdefault("runtime", str(places.runtime))
    control = data.setdefault("control", {})
    if isinstance(control, dict) and control.get("socket") is None:
        usable = isinstance(runtime, str) and runtime.startswith("/")
        control["socket"] = f"{runtime if usable else places.runtime}/mountd.sock"
    for name, mount in _entries(data, "mounts").items():
        cache = mount.setdefault("cache", {})
        if isinstance(cache, dict) and cache.get("dir") is None:
            cache["dir"] = str(places.cache / name)


def _mapping(data: dict[str, Any], section: str) -> dict[str, Any]:
    found = data.get(section)
    return found if isinstance(found, dict) else {}


def _entries(data: dict[str, Any], section: str) -> dict[str, dict[str, Any]]:
    return {name: entry for name, entry in _mapping(data, section).items() if isinstance(entry, dict)}
