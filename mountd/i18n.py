"""The language of texts for people: English as they stand in the source, 简体中文 from a catalogue of gettext.

`_()` is for the command line, whose language is that of its environment; the daemon answers in the language of a
request, by `translation()`. `M_()` is for what becomes a document, which is English, as well as a line for a reader.
English opens no file and imports nothing. `./dev messages` makes the catalogue.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

ENGLISH, CHINESE = "en", "zh_CN"
LANGUAGES = (ENGLISH, CHINESE)
DOMAIN = "mountd"
DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "share", "locale")
_PLAIN = ("", "C", "POSIX")
"""Locales of no language, in which gettext leaves $LANGUAGE unread."""


class Translation:
    """The texts of one language. A message that is not in its catalogue stays English, as all do without one."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._messages: dict[str, str] | None = {} if language == ENGLISH else None

    def text(self, message: str) -> str:
        """`message`, a template with `{name}` in it or none, in this language."""
        return self.messages().get(message, message)

    def messages(self) -> dict[str, str]:
        """Every message of the catalogue, English → this language; {} in English. For a page, as JSON."""
        if self._messages is None:
            self._messages = _read(catalogue_path(self.language))
        return self._messages


_made: dict[str, Translation] = {}


def translation(language: str) -> Translation:
    """That of a language by its name in any spelling (`zh_CN`, `zh-Hans`); English for one that mountd lacks."""
    known = closest(language) or ENGLISH
    if known not in _made:
        _made[known] = Translation(known)
    return _made[known]


def language_of(environ: Mapping[str, str]) -> str:
    """Which of LANGUAGES a process with these variables speaks, by the rules of gettext."""
    locale = next((environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(name)), "")
    if locale.partition(".")[0] in _PLAIN:
        return ENGLISH
    names = (environ.get("LANGUAGE") or locale).split(":")
    return next((found for name in names if (found := closest(name))), ENGLISH)


def closest(name: str) -> str | None:
    """`zh_CN.UTF-8`, `zh-Hans`, `en_GB`, `C` → which of LANGUAGES that is; None for another language."""
    language = name.partition(".")[0].partition("@")[0].replace("-", "_").partition("_")[0].lower()
    if language in ("en", "c", "posix"):
        return ENGLISH
    return CHINESE if language == "zh" else None


def _(message: str) -> str:
    """`message` in the language of this process; for the command line."""
    return translation(language_of(os.environ)).text(message)


def N_(message: str) -> str:
    """`message` as it is: marks it for the catalogue where it stands in a table that `_()` reads later."""
    return message


class Message(str):
    """A text in English that knows its template and its values, for a reader of another language."""

    template: str
    values: Mapping[str, Any]


def M_(template: str, **values: Any) -> Message:
    """`template` with these values, in English; `shown()` puts it, and each value that is one, into the language of the
    reader."""
    made = Message(template.format(**values))
    made.template, made.values = template, values
    return made


def shown(text: object) -> str:
    """In the language of this process, if `M_()` made it; any other text as it is."""
    if not isinstance(text, Message):
        return str(text)
    return _(text.template).format(**{name: _value(each) for name, each in text.values.items()})


def _value(value: Any) -> Any:
    """Left as it is where it is no message: a template may say how a number is written."""
    return shown(value) if isinstance(value, Message) else value


def catalogue_path(language: str, suffix: str = ".mo") -> str:
    """The compiled catalogue, or with `.po` its source."""
    return os.path.join(DIRECTORY, language, "LC_MESSAGES", DOMAIN + suffix)


def _read(path: str) -> dict[str, str]:
    """{} for a file that is not there or is broken: English is better than no answer."""
    import struct
    from gettext import GNUTranslations

    try:
        with open(path, "rb") as file:
            found = vars(GNUTranslations(file)).get("_catalog", {})
    except (OSError, ValueError, LookupError, struct.error):
        return {}
    return {key: text for key, text in found.items() if isinstance(key, str) and key and text}
