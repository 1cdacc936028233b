"""Every secret that this machine's mountd knows, read once, so that none leaves in a support bundle.

From the configuration file (also a broken one), the places that it refers to, the environments of the daemon and its
apps, and rclone's own files. What cannot be read here is named, and its value cannot be looked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mountd.settings import masking
from mountd.settings.plain_file import read_plain
from mountd.settings.secret import MAX_SECRET_BYTES, is_secret, is_secret_option
from mountd.settings.source import MAX_BYTES, BadSource, decode, read

MAX_ENVIRON_BYTES = 4 * 1024 * 1024
MAX_FILE_BYTES = 1024 * 1024
_USERINFO = re.compile(r"://[^/@\s:]*:([^@\s]+)@|://([^/@\s:]{21,})@")
_PARAMETER = re.compile(r"[?&#;]([\w-]+)=([^&#;\s\"']+)")
_LINE = re.compile(r"(?m)^\s*-?\s*[\"']?([A-Za-z][\w-]*)[\"']?\s*[:=]\s*(.+?)\s*$")
_REFERENCE = ("env", "file", "credential")


@dataclass
class KnownSecrets:
    """`unread`: places, in words, whose secret could not be read here."""

    values: set[str] = field(default_factory=set)
    unread: list[str] = field(default_factory=list)

    def add(self, text: str, *, lines: bool = False) -> None:
        """`lines`: a file of tokens, whose words are secrets each."""
        self.values.add(text)
        if lines:
            self.values |= {word for word in text.split() if len(word) >= 16}
        with contextlib.suppress(ValueError, RecursionError):
            if text.lstrip().startswith(("{", "[")):
                self._leaves(json.loads(text), "")

    def _leaves(self, value: object, name: str) -> None:
        """Of a secret that is JSON, such as a token of OAuth."""
        if isinstance(value, dict):
            for key, each in value.items():
                self._leaves(each, str(key))
        elif isinstance(value, list):
            for each in value:
                self._leaves(each, name)
        elif isinstance(value, str) and is_secret_option(name, value):
            self.values.add(value)


def collect(config: Path | None, unit: str, pids: Iterable[int], files: Iterable[Path]) -> KnownSecrets:
    """`pids`: the daemon and its apps, the daemon first; `files`: what rclone keeps, as `name = value` or JSON."""
    found = KnownSecrets()
    environments = [dict(os.environ), *filter(None, map(environment_of, pids))]
    for environment in environments:
        found.values |= {value for name, value in environment.items() if is_secret(name, value)}
        for value in environment.values():
            _in_text(found, value)
    if config is not None:
        _of_config(found, config, unit, environments)
    for path in files:
        with contextlib.suppress(OSError):
            _of_lines(found, read_plain(path, MAX_FILE_BYTES).decode("utf-8", "replace"))
    return found


def environment_of(pid: int) -> dict[str, str]:
    """Empty where it may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            data = file.read(MAX_ENVIRON_BYTES)
    except OSError:
        return {}
    pairs = (each.decode("utf-8", "replace").partition("=") for each in data.split(b"\0") if b"=" in each)
    return {name: value for name, _, value in pairs}


def _of_config(found: KnownSecrets, path: Path, unit: str, environments: list[dict[str, str]]) -> None:
    try:
        text = decode(read_plain(path, MAX_BYTES))
    except (OSError, BadSource):
        return
    try:
        data = read(text).data
    except BadSource:
        _of_lines(found, text)
        return
    for place, value in _walk(data, ()):
        name = next((part for part in reversed(place) if not part.isdigit()), "")
        if isinstance(value, Mapping):
            _of_reference(found, place, value, unit, environments)
        elif isinstance(value, list):
            _of_command(found, value)
        else:
            if is_secret_option(name, value):
                found.add(value)
            _in_text(found, value)


def _walk(
    value: object, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, str] | list[str] | str]]:
    """Scalars, references to secrets, and commands, each with its keys."""
    if isinstance(value, dict):
        kinds = [key for key in value if key in _REFERENCE]
        if len(value) == 1 and kinds and isinstance(value[kinds[0]], str):
            yield place, value
            return
        for key, each in value.items():
            yield from _walk(each, (*place, str(key)))
    elif isinstance(value, list):
        if place and place[-1] == "command":
            yield place, [str(each) for each in value]
        for number, each in enumerate(value):
            yield from _walk(each, (*place, str(number)))
    elif isinstance(value, str):
        yield place, value


def _of_reference(
    found: KnownSecrets, place: tuple[str, ...], value: Mapping[str, str], unit: str, environments: list[dict[str, str]]
) -> None:
    (kind, name), *_ = value.items()
    lines = place[-1:] == ("tokens",)
    if kind == "env":
        values = [environment[name] for environment in environments if name in environment]
        for each in values:
            found.add(each, lines=lines)
        if not values:
            found.unread.append(f"{'.'.join(place)}: the environment variable {name}")
        return
    if place[-2:] == ("tls", "certificate"):
        return  # which everybody gets to see
    paths = [Path(name)] if kind == "file" else _credential_paths(name, unit)
    for path in paths:
        with contextlib.suppress(OSError):
            found.add(read_plain(path, MAX_SECRET_BYTES).decode("utf-8", "replace"), lines=lines)
            return
    found.unread.append(f"{'.'.join(place)}: {kind} {name}")


def _credential_paths(name: str, unit: str) -> list[Path]:
    own = os.environ.get("CREDENTIALS_DIRECTORY")
    return [*([Path(own, name)] if own else []), Path("/run/credentials", unit, name)]


def _of_command(found: KnownSecrets, words: list[str]) -> None:
    """What `masking` hides of a command line: what differs is the secret."""
    for word, masked in zip(words, masking.command(words), strict=True):
        if word != masked:
            begin = _alike(word, masked)
            end = _alike(word[begin:][::-1], masked[begin:][::-1])
            found.values.add(word[begin : len(word) - end])
            found.values.add(word.partition("=")[2])
        _in_text(found, word)


def _alike(one: str, other: str) -> int:
    """How many characters of their beginning are the same."""
    return next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )


def _in_text(found: KnownSecrets, text: str) -> None:
    """Passwords and secret parameters of addresses."""
    for match in _USERINFO.finditer(text):
        found.values.add(match[1] or match[2])
    for match in _PARAMETER.finditer(text):
        if is_secret_option(match[1], match[2]):
            found.values.add(match[2])


def _of_lines(found: KnownSecrets, text: str) -> None:
    for match in _LINE.finditer(text):
        value = match[2].strip("\"',")
        if is_secret_option(match[1], value):
            found.add(value)
        _in_text(found, value)
