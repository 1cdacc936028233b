"""The control socket that a file names, however broken the rest is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.errors import ConfigError
from mountd.settings.control_socket import named, named_in


@pytest.mark.parametrize(
    ("text", "socket"),
    [
        ("control: {socket: /a}\nx: [", "/a"),
        ('x: \'\ncontrol:\n  # who may\n  group: g\n\n  socket: "/b"  # where\nruntime: /r\n', "/b"),
        ("a: b: c\nruntime: /r # short\n", "/r/mountd.sock"),
        ("control:\n\tsocket: /a\nruntime: /r\n", "/a"),
        ("control: {socket: /a, group: [}\n", "/a"),
        ("control: {group: g}\nmounts: 5\nruntime: /r\n", "/r/mountd.sock"),
        ("control: {socket: /a}\nx: [\ncontrol: {socket: /b}\n", "/a"),
        ("runtime: /r\nx: [\ncontrol: {socket: /a}\n", "/a"),
        ("mounts:\n  control: {socket: /a}\nx: [\n", ""),
        ("control: {group: g}\nstate: [\n", ""),
        ("control: {socket: relative}\n", ""),
        ("control: x\nruntime: [/r]\n", ""),
        ("a: b: c\n", ""),
        ("- a\n", ""),
        ("", ""),
    ],
)
def test_what_is_named(text: str, socket: str) -> None:
    assert named(text) == socket


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, cause in [(tmp_path / "none.yaml", "no such file"), (tmp_path, "is a directory")]:
        with pytest.raises(ConfigError, match=cause):
            named_in(path)
    (tmp_path / "bad.yaml").write_bytes(b"runtime: /r\xff\n")
    assert named_in(tmp_path / "bad.yaml") == ""


@given(st.text(alphabet=st.sampled_from(list("cotrl:socke runtime/{}[]\"'#\n\t")), max_size=80))
def test_any_text_names_a_socket_or_none(text: str) -> None:
    assert named(f"control: {text}").startswith(("/", ""))
