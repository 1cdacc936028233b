"""The help of a command in the language of the reader.

Imported only where that is not English. The man page stays English.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterable, Iterator

import click

from mountd.cli.wrap import broken, columns, padded
from mountd.i18n import DIRECTORY, DOMAIN, N_, _

CLICK = (
    N_("Usage:"),
    N_("Options"),
    N_("Commands"),
    N_("Error: {message}"),
    N_("Try '{command} {option}' for help."),
    N_("Show this message and exit."),
    N_("Missing argument"),
    N_("Missing option"),
    N_("Missing command."),
    N_("Invalid value: {message}"),
    N_("Invalid value for {param_hint}: {message}"),
    N_("No such option {name!r}."),
    N_("Option {name!r} does not take a value."),
    N_("default: {default}"),
    N_("required"),
)
"""What click itself says; it asks the catalogue by gettext."""
TITLES = (N_("Examples:"), N_("Exit codes:"))
_PARAGRAPHS = re.compile(r"\n\s*\n")
_NAMED = re.compile(r"(\s*)(\S+\s{2,})?(.*)")


class WideFormatter(click.HelpFormatter):
    """Knows that a Chinese character takes two columns, and that a line may end behind any of them."""

    def write_text(self, text: str) -> None:
        indent = " " * self.current_indent
        for number, paragraph in enumerate(_PARAGRAPHS.split(text)):
            if paragraph.lstrip(" ").startswith("\b"):
                lines = paragraph.splitlines()[1:]
            else:
                lines = broken(" ".join(paragraph.split()), self.width - len(indent))
            self.write("".join(["\n" * bool(number), *(f"{indent}{line}\n" for line in lines)]))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        indent, entries = " " * self.current_indent, list(rows)
        first = min(max((columns(name) for name, _text in entries), default=0), col_max) + col_spacing
        for name, text in entries:
            lines = broken(text, max(self.width - first - len(indent), 10))
            if columns(name) <= first - col_spacing:
                lines[0] = padded(name, first) + lines[0]
            else:
                lines = [name, *lines]
            rest = (" " * first + line for line in lines[1:])
            self.write("".join(f"{indent}{line}\n" for line in [lines[0], *rest]))


class WideContext(click.Context):
    formatter_class = WideFormatter


def translate_click() -> None:
    """Where click looks for its own words from now on."""
    import gettext

    gettext.bindtextdomain(DOMAIN, DIRECTORY)
    gettext.textdomain(DOMAIN)


def leave_click() -> None:
    """As it was before: for what is English in each language."""
    import gettext

    gettext.textdomain("messages")


def localized(command: click.Command) -> click.Command:
    """A copy whose help is in the language of the reader, as far as the catalogue goes; names stay as they are."""
    made = copy.copy(command)
    made.context_class = WideContext
    made.help = translated(command.help or "")
    made.short_help = _(command.short_help) if command.short_help else None
    made.epilog = translated(command.epilog) if command.epilog else None
    made.params = [_option(each) if isinstance(each, click.Option) else each for each in command.params]
    if isinstance(made, click.Group):
        made.commands = {name: localized(each) for name, each in made.commands.items()}
    return made


def _option(option: click.Option) -> click.Option:
    made = copy.copy(option)
    made.help = _(option.help) if option.help else None
    return made


def translated(text: str) -> str:
    """Each paragraph by itself; of one that keeps its lines, each line."""
    return "\n\n".join(_paragraph(each) for each in _PARAGRAPHS.split(inspect.cleandoc(text)))


def messages_of(text: str) -> Iterator[str]:
    """What the catalogue has of a help text: paragraphs as one line, and texts that have a name before them."""
    for paragraph in _PARAGRAPHS.split(inspect.cleandoc(text)):
        if not paragraph.startswith("\b"):
            yield " ".join(paragraph.split())
            continue
        yield from (found[3] for line in paragraph.splitlines() if (found := _NAMED.fullmatch(line)) and found[2])


def _paragraph(text: str) -> str:
    if not text.startswith("\b"):
        line = " ".join(text.split())
        return _(line)
    return "\n".join(_line(each) for each in text.splitlines())


def _line(line: str) -> str:
    """`  name  what it is` → the same with its text translated; a title as a whole."""
    found = _NAMED.fullmatch(line)
    assert found is not None
    return f"{found[1]}{found[2] or ''}{_(found[3])}"
