"""Long lines on a terminal: whole words, nothing lost, nothing too wide; the wording of what a reload does."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.cli.remote import reload_effect
from mountd.cli.wrap import NARROWEST, wrapped

WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z", "M"]), min_size=1, max_size=30))


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("short", 20, ["short"]),
        ("one two three four five six", 20, ["one two three four", "  five six"]),
        ("  hint: put the file on a local disk", 20, ["  hint: put the file", "    on a local disk"]),
        ("        → see `mountd status` for it", 30, ["        → see `mountd status`", "          for it"]),
        ("/a/path/that/is/longer/than/the/line and more", 20, ["/a/path/that/is/longer/than/the/line", "  and more"]),
        ("run `mountd logs webui` to see it", 26, ["run `mountd logs webui` to", "  see it"]),
        ("look at `mountd logs webui` now", 20, ["look at", "  `mountd logs webui`", "  now"]),
        ("模型已经加载完成可以使用了", 20, ["模型已经加载完成可以", "  使用了"]),
        ("a\nb c d e f g h i j k l m n o\nz", 20, ["a", "b c d e f g h i j k", "  l m n o", "z"]),
        ("  flip   point the link at", 20, ["  flip   point the", "         link at"]),
        ("too narrow a terminal", NARROWEST - 1, ["too narrow a terminal"]),
    ],
)
def test_where_lines_are_broken(text: str, width: int, lines: list[str]) -> None:
    assert wrapped(text, width).split("\n") == lines


def test_what_stands_before_counts() -> None:
    assert wrapped("  config: the file is good", 26, before=4).split("\n") == ["  config: the file is", "        good"]


@given(WORDS, st.integers(NARROWEST, 120), st.integers(0, 8))
def test_no_word_is_lost_or_broken(words: list[str], width: int, indent: int) -> None:
    line = " " * indent + " ".join(words)
    broken = wrapped(line, width)
    assert re.sub(r"\s+", "", broken) == "".join(words)
    if line.isascii():
        assert broken.split() == words
    if line.isascii() and all(len(word) < width // 2 for word in words) and "`" not in line:
        assert max(len(row) for row in broken.split("\n")) <= width


SAYS = """
from mountd.cli.terminal import say
say("ok    one two three four five six seven eight nine ten")
say("key: one two three four five six seven eight nine ten", wrap=False)
"""


def test_only_a_terminal_gets_broken_lines() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with os.fdopen(ours, "rb", buffering=0) as reader:
        subprocess.run([sys.executable, "-c", SAYS], stdout=theirs, timeout=60, check=True)
        os.close(theirs)
        rows = reader.read(4096).decode().splitlines()
    whole = "key: one two three four five six seven eight nine ten"
    assert rows == ["ok    one two three four five six seven", "      eight nine ten", whole]
    piped = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, timeout=60, check=True)
    assert len(piped.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("place", "effect"),
    [
        ("apps.webui.ready.timeout", "in place"),
        ("mounts.storage.umask", "restarts storage"),
        ("remotes.store.endpoint", "restarts storage, webui"),
        ("models.hub.directory", "restarts storage, webui"),
        ("apps.new", "added or removed"),
    ],
)
def test_what_a_reload_did_with_each_key(place: str, effect: str) -> None:
    assert reload_effect(place, ["apps.webui.ready.timeout"], ["storage", "webui"]) == effect
