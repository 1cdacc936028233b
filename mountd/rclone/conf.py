"""Remotes → the text of rclone.conf, such that rclone reads back every value exactly as it was given.

rclone's parser (goconfig, tried with `config dump` of 1.75.2) trims a value, takes one in
backticks or triple quotes without them, up to the *last* such quote, and replaces `%(name)s` everywhere, quoted or not.
Anything else stands for itself: `#`, `;`, `=`, `:`, quotes, backslashes and `%`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from mountd.errors import UsageError
from mountd.settings import masking
from mountd.settings.names import NAME
from mountd.settings.secret import SecretRef

HEADER = "# Written by mountd: change its configuration instead. `mountd config render` shows it with secrets hidden.\n"

_OPTION = re.compile(r"[a-z0-9][a-z0-9_]*")
_REPLACED = re.compile(r"%\([^)]+\)s")


def render(remotes: Mapping[str, Mapping[str, str]]) -> str:
    """The file for resolved values: sections by name, `type` first, then options by name.

    Raises UsageError for what the format cannot hold; the text names the place, never the value.
    """
    return HEADER + "".join(f"\n{_section(name, options)}" for name, options in sorted(remotes.items()))


def render_masked(
    remotes: Mapping[str, Mapping[str, str | SecretRef]], password_options: Mapping[str, frozenset[str]] | None = None
) -> str:
    """The same file to show to people: references as they were written, secrets in plain text hidden."""
    passwords = password_options or {}
    return render(
        {
            name: {
                option: shown(option, value, password=option in passwords.get(str(options.get("type")), ()))
                for option, value in options.items()
            }
            for name, options in remotes.items()
        }
    )


def shown(option: str, value: str | SecretRef, *, password: bool = False) -> str:
    """The value of an option, fit to be shown to people."""
    if isinstance(value, SecretRef):
        return str(value)
    return masking.HIDDEN if password else masking.option(option, value)


def _section(name: str, options: Mapping[str, str]) -> str:
    if not NAME.fullmatch(name):
        raise UsageError(f"cannot write rclone.conf: {name!r} is not the name of a remote")
    if not options.get("type"):
        raise UsageError(f"cannot write rclone.conf: remotes.{name} has no type")
    for option in options:
        if not _OPTION.fullmatch(option):
            raise UsageError(f"cannot write rclone.conf: {option!r} in remotes.{name} is not the name of an option")
    order = sorted(options, key=lambda option: (option != "type", option))
    lines = (f"{option} = {_value(f'remotes.{name}.{option}', options[option])}" for option in order)
    return "\n".join([f"[{name}]", *lines]) + "\n"


def _value(place: str, value: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise UsageError(
            f"cannot write rclone.conf: {place} holds a line end or another control character",
            hint="a key of several lines goes into a file of its own: rclone has an option for it, such as key_file",
        )
    if _REPLACED.search(value):
        raise UsageError(
            f"cannot write rclone.conf: {place} holds %(…)s, which rclone would replace by another option",
            hint="change the secret: no way of writing it survives rclone's configuration file",
        )
    quoted = value != value.strip() or value.startswith(("`", '"""'))
    return f"`{value}`" if quoted else value
