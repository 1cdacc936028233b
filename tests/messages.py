"""The catalogue of translations, kept in step with the source: `./dev messages [--check]`.

Extracts `_("…")`, `N_("…")` and `M_("…")` from the package, `t("…")` from the page's scripts, and the help of commands.
Then it updates mountd.po and compiles mountd.mo. What is new in mountd.po stands there without a translation: fill it
in and run this once more.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import string
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from mountd import i18n

TOP = Path(i18n.__file__).parents[1]
PACKAGE = TOP / "mountd"
SCRIPTS = PACKAGE / "api" / "dashboard"
PO = Path(i18n.catalogue_path(i18n.CHINESE, ".po"))
MO = Path(i18n.catalogue_path(i18n.CHINESE))
HEADER = "# Chinese of mountd's command line, explanations and page. Made by ./dev messages, translated by hand."
PYTHON_WORDS: dict[str, None] = {"_": None, "N_": None, "M_": None}
SCRIPT_CALL = re.compile(r"""(?<![\w$.])t\(\s*("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""")
COMMENT_LINE = re.compile(r"^\s*(?://|\*|/\*).*$", re.MULTILINE)


def extracted() -> set[str]:
    """Every message that the source asks a translation for."""
    found = {message for path in sorted(PACKAGE.rglob("*.py")) for message in _of_python(path)}
    found |= {message for path in sorted(SCRIPTS.glob("*.js")) for message in _of_script(path)}
    return found | set(_of_commands())


def _of_python(path: Path) -> Iterator[str]:
    if path.name == "i18n.py":
        return
    options, source = {"encoding": "utf-8"}, io.BytesIO(path.read_bytes())
    for _line, message, _comments, _context in extract("python", source, PYTHON_WORDS, (), options):
        assert isinstance(message, str)
        if message:
            yield message


def _of_script(path: Path) -> Iterator[str]:
    """By its text: a lexer would have to know the language of the templates as well."""
    if path.name.endswith(".min.js"):  # what others wrote
        return
    for found in SCRIPT_CALL.finditer(COMMENT_LINE.sub("", path.read_text("utf-8"))):
        quote, inner = found[1][0], found[1][1:-1]
        message = str(ast.literal_eval(f"{quote}{inner}{quote}"))
        if message:
            yield message


def _of_commands() -> Iterator[str]:
    """The help of each command and of each option."""
    from mountd.cli.help import messages_of
    from mountd.cli.main import cli

    for command in _commands(cli):
        yield from messages_of(command.help or "")
        yield from filter(None, (command.short_help,))
        yield from (each.help for each in command.params if isinstance(each, click.Option) and each.help)


def _commands(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name="mountd")
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _commands(below)


def committed() -> Catalog:
    """mountd.po as it is; one without messages where there is none."""
    if not PO.exists():
        return Catalog(locale=i18n.CHINESE, domain=i18n.DOMAIN)
    with PO.open("rb") as file:
        return read_po(file, locale=i18n.CHINESE, domain=i18n.DOMAIN)


def updated(catalog: Catalog, messages: set[str]) -> Catalog:
    """A catalogue of these messages in their order, with the translations that `catalog` has of them."""
    made = Catalog(locale=i18n.CHINESE, domain=i18n.DOMAIN, fuzzy=False, header_comment=HEADER)
    for message in sorted(messages):
        known = catalog.get(message)
        made.add(message, known.string if known and isinstance(known.string, str) else "")
    return made


def po_text(catalog: Catalog) -> bytes:
    """Without dates, places and line breaks of its own: what a merge and a reader can do nothing with."""
    written = io.BytesIO()
    write_po(written, catalog, width=0, no_location=True, omit_header=True)
    head = f'{HEADER}\nmsgid ""\nmsgstr ""\n'
    head += "".join(f'"{name}: {value}\\n"\n' for name, value in FIELDS.items())
    return f"{head}\n".encode() + written.getvalue()


FIELDS = {
    "Language": i18n.CHINESE,
    "MIME-Version": "1.0",
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Transfer-Encoding": "8bit",
}


class Undated(Catalog):
    """With the encoding alone in its header, so that the same translations are the same bytes."""

    @property
    def mime_headers(self) -> list[tuple[str, str]]:
        return [("Content-Type", "text/plain; charset=utf-8")]


def mo_bytes(catalog: Catalog) -> bytes:
    """The compiled catalogue."""
    written = io.BytesIO()
    bare = Undated(locale=i18n.CHINESE, domain=i18n.DOMAIN, fuzzy=False)
    for message in translated(catalog):
        bare.add(message.id, message.string)
    write_mo(written, bare)
    return written.getvalue()


def translated(catalog: Catalog) -> Iterator[Message]:
    """Its messages with a translation, without the header."""
    return (each for each in catalog if each.id and each.string and not each.fuzzy)


def problems(messages: set[str]) -> list[str]:
    """What is wrong with the committed files, in words; [] when they are up to date and complete."""
    catalog = committed()
    known = {str(each.id): each for each in catalog if each.id}
    found = [f"not in mountd.po: {each!r}" for each in sorted(messages - known.keys())]
    found += [f"in mountd.po, and nowhere in the source: {each!r}" for each in sorted(known.keys() - messages)]
    for id_, each in known.items():
        if not each.string:
            found.append(f"not translated: {id_!r}")
        elif each.fuzzy:
            found.append(f"marked as fuzzy: {id_!r}")
        elif places(id_) != places(str(each.string)):
            found.append(f"other places for values than {id_!r}: {each.string!r}")
    if not found and (not MO.exists() or MO.read_bytes() != mo_bytes(catalog)):
        found.append("mountd.mo is not the compiled mountd.po")
    if not found and PO.read_bytes() != po_text(catalog):
        found.append("mountd.po is not as ./dev messages writes it")
    return found


def places(text: str) -> list[str]:
    """The `{name}`s in a template, sorted; for the page also where a translation begins or ends with a space."""
    try:
        fields = sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)
    except ValueError:  # a brace that stands for itself
        fields = sorted(re.findall(r"\{\w*\}", text))
    return fields


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev messages", description="Update and compile the translations.")
    parser.add_argument("--check", action="store_true", help="only say what is wrong")
    asked = parser.parse_args()
    messages = extracted()
    if not asked.check:
        catalog = updated(committed(), messages)
        PO.parent.mkdir(parents=True, exist_ok=True)
        PO.write_bytes(po_text(catalog))
        MO.write_bytes(mo_bytes(catalog))
    found = problems(messages)
    print("\n".join(found) or f"{len(messages)} messages, all translated")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
