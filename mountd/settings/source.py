"""YAML text → plain data with every scalar as text, the line of each place, and what is wrong with it as YAML.

PyYAML's node graph is used instead of its loader: `022`, `1.10`, `on` and `2026-01-01` stay what was written, and every
key keeps its line. No message repeats anything but keys, because what cannot be read may be a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from mountd.errors import Problem
from mountd.text import storable

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 40
MAX_NODES = 20_000
"""Keys and values, those that aliases repeat included: what is larger is another file, and would take minutes."""

Place = tuple[str | int, ...]
"""Where in the file: `("apps", "webui", "command", 0)`."""

_STR = "tag:yaml.org,2002:str"
_PLAIN_TAGS = {_STR, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_EMPTY = {"", "~", "null", "Null", "NULL"}

_NO_TAGS = "tags are not used here: quote a value that starts with '!'"
# PyYAML's words → ours. The first that matches counts; "start" takes the line where the broken thing began.
_WORDS = (
    ("found character '\\\\t'", "a tab cannot indent: use spaces", ""),
    ("cannot start any token", "a value cannot start with this character: quote it", ""),
    ("found undefined alias", "an alias (*…) without its anchor (&…): quote a value that starts with '*'", ""),
    ("duplicate anchor", "an anchor (&…) is defined twice", ""),
    ("undefined tag handle|while (scanning|parsing) a tag", _NO_TAGS, ""),
    ("while scanning an? (alias|anchor)", "quote a value that starts with '*' or '&'", ""),
    ("while scanning a directive|expected '<document start>'", "not YAML here: quote a value that starts with '%'", ""),
    ("expected a single document", "more than one document ('---'): a file holds one", ""),
    ("while scanning a quoted scalar.*(end of stream|document separator)", "this quote is not closed", "start"),
    ("unknown escape|expected escape sequence", "an unknown escape in double quotes: use single quotes", ""),
    ("flow (mapping|sequence|node)", "this bracket is not closed, or a comma is missing", "start"),
    ("mapping values are not allowed", "wrong indentation, or a value that holds ': ' and needs quotes", ""),
    ("could not find expected ':'", "a key without ':'", "start"),
    ("expected <block end>", "wrong indentation: this does not line up with what stands above", ""),
    ("found unexpected end of stream", "the file ends too early", ""),
)


class BadSource(Exception):
    """The text is no YAML that can be used; `problem` says where and why."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.problem = Problem("", line, text)


@dataclass(frozen=True, slots=True)
class Document:
    """`data`: dicts, lists, text and None. `lines`: place → 1-based line of its key or item. `twice`: keys that are
    written more than once, of which `data` has the first; a problem as well."""

    data: Any
    lines: dict[Place, int]
    problems: tuple[Problem, ...]
    twice: frozenset[Place] = frozenset()


def dotted(place: Place) -> str:
    """`("apps", "webui", "command", 0)` → `apps.webui.command[0]`."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if re.fullmatch(r"[\w/@+-]{1,64}", part) else json.dumps(part[:64], ensure_ascii=False)
            text += f".{shown}" if text else shown
    return text


def line_of(place: Place, lines: Mapping[Place, int]) -> int:
    """The line of the place itself, else of the nearest thing around it that stands in the file, else 0."""
    return next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), 0)


def decode(data: bytes) -> str:
    """UTF-8, with or without a byte order mark. Raises BadSource."""
    if len(data) > MAX_BYTES:
        raise BadSource(0, "the file is larger than 1 MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSource(
            data[: error.start].count(b"\n") + 1, "this is not UTF-8 text: save the file as UTF-8"
        ) from None


def read(text: str) -> Document:
    """Raises BadSource when nothing can be made of the text; lesser problems are in the document."""
    if len(text) > MAX_BYTES:
        raise BadSource(0, "the file is larger than 1 MiB")
    try:
        root = yaml.compose(text, Loader=_TextLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise BadSource(line, f"the character U+{code:04X} cannot stand in YAML") from None
    except yaml.MarkedYAMLError as error:
        raise _in_plain_words(error, text.splitlines()) from None
    except RecursionError:
        raise BadSource(0, f"nested more than {MAX_DEPTH} deep") from None
    except (yaml.YAMLError, ValueError, OverflowError):  # the latter two: "\U99999999" in double quotes
        raise BadSource(0, "this is not YAML") from None
    if root is None:
        raise BadSource(0, "the file is empty")
    walk = _Walk()
    data = walk.value(root, ())
    return Document(data, walk.lines, tuple(walk.problems), frozenset(walk.twice))


class _TextLoader(yaml.SafeLoader):
    """Takes no scalar for a number, a date or a truth value."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - so declared by PyYAML
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise BadSource(
                self.line + 1, f"more than {MAX_NODES} keys and values: this is not a configuration of mountd"
            )
        return super().compose_node(parent, index)


@dataclass(slots=True)
class _Walk:
    """One walk over the node graph."""

    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    twice: set[Place] = field(default_factory=set)
    nodes: int = 0
    open: list[yaml.Node] = field(default_factory=list)  # from the root to here; finds an alias that contains itself

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.nodes += 1
        line = node.start_mark.line + 1
        if self.nodes > MAX_NODES:
            raise BadSource(line, "the aliases (*…) of this file expand to too much")
        if any(node is parent for parent in self.open):
            raise BadSource(line, "an alias (*…) contains itself")
        if len(self.open) >= MAX_DEPTH:
            raise BadSource(line, f"nested more than {MAX_DEPTH} deep")
        if node.tag not in _PLAIN_TAGS:
            self._problem(place, line, _NO_TAGS)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        self.open.append(node)
        try:
            return self._mapping(node, place) if isinstance(node, yaml.MappingNode) else self._sequence(node, place)
        finally:
            self.open.pop()

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> str | None:
        text = str(node.value)
        if bad := _unusable(text):
            self._problem(place, node.start_mark.line + 1, f"holds {bad}")
        return None if node.style is None and text in _EMPTY else text

    def _sequence(self, node: yaml.Node, place: Place) -> list[Any]:
        items = []
        for index, item in enumerate(node.value):
            self.lines[(*place, index)] = item.start_mark.line + 1
            items.append(self.value(item, (*place, index)))
        return items

    def _mapping(self, node: yaml.Node, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(place, line, "a key must be text: quote a value that starts with '{' or '['")
                continue
            key = str(key_node.value)
            if not key or (bad := _unusable(key)):
                self._problem(place, line, f"a key holds {bad}" if key else "a key is empty")
            elif key == "<<" and key_node.style is None:
                self._problem(place, line, "merge keys (<<) are not supported: write the keys out")
            elif key in result:
                first = self.lines[(*place, key)]
                self.twice.add((*place, key))
                self._problem((*place, key), line, f"is written twice, first in line {first}")
            else:
                self.lines[(*place, key)] = line
                result[key] = self.value(value_node, (*place, key))
        return result

    def _problem(self, place: Place, line: int, text: str) -> None:
        self.problems.append(Problem(dotted(place), line, text))


def _unusable(text: str) -> str:
    """What in it can be no part of a name, an argument or a document; empty when all of it can."""
    if "\0" in text:
        return "a NUL character"
    # In double quotes "\ud83d\ude00" are two halves, as in JSON, and YAML takes each as a character.
    return "half of a surrogate pair (write the character itself)" if storable(text, len(text)) != text else ""


def _in_plain_words(error: yaml.MarkedYAMLError, rows: list[str]) -> BadSource:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    row = rows[line - 1] if 0 < line <= len(rows) else ""
    if re.match(r" *\t", row):
        return BadSource(line, "a tab cannot indent: use spaces")
    said = f"{error.context or ''} {error.problem or ''}"
    for pattern, text, where in _WORDS:
        if re.search(pattern, said):
            start = error.context_mark if where == "start" and error.context_mark else mark
            return BadSource(start.line + 1 if start else 0, text)
    return BadSource(line, "this is not YAML")
