"""However large and strange a file is: it is read without waiting for anybody, and the work for it is bounded."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import ConfigError
from mountd.settings import control_socket
from mountd.settings.load import MAX_TEXT, Places, inspect_text, load
from mountd.settings.plain_file import read_plain
from mountd.settings.source import MAX_NODES
from mountd.settings.words import MAX_PROBLEMS

PLACES = Places(Path("/var/lib/mountd"), Path("/var/cache/mountd"), Path("/run/mountd"))
CPU_S = 10.0
"""Each takes less than 1 s of CPU; without the bounds, minutes."""
MANY = MAX_NODES // 2 - 100
BASE = """remotes:
  r: {type: s3, provider: Other, endpoint: "https://s3.example.com"}
mounts:
  m: {remote: "r:b", path: /mnt/m}
"""


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(("make", "kind"), [(pipe, "pipe"), (listening, "socket"), (device, "device")])
def test_only_regular_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mountd.yaml"
    make(path)
    for read in (load, control_socket.named_in):
        with pytest.raises(ConfigError) as refused:
            read(path)
        [problem] = refused.value.problems
        assert problem.text.endswith(f" {kind}")


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and its opening."""
    path, stat = tmp_path / "mountd.yaml", os.stat

    def then_replace(at: Any, **keys: Any) -> os.stat_result:
        found = stat(at, **keys)
        if at == path:
            path.unlink()
            os.mkfifo(path)
        return found

    path.touch()
    monkeypatch.setattr(os, "stat", then_replace)
    with pytest.raises(OSError, match="pipe"):
        read_plain(path, 1000)


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    assert len(read_plain(tmp_path / "large", 1000)) == 1001


def repeated(line: str, count: int = MANY) -> str:
    return "".join(line.format(number=number) for number in range(count))


@pytest.mark.shown_by("80000", "mounts", "secrets", "brackets", "sections", "full-width")
@pytest.mark.shown_by("unknown-keys", "one-key-again", "secrets-in-the-open", "brackets")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BASE + repeated("key{number}: x\n"), id="unknown-keys"),
        pytest.param(BASE + repeated("key{number}: x\n", 80_000), id="80000-unknown-keys"),
        pytest.param(BASE + "    paths: x\n" + repeated("    pathh{number}: x\n"), id="unknown-keys-of-a-mount"),
        pytest.param(BASE + repeated("  m{number}: {{remote: 'r:b', path: /mnt/m{number}}}\n", 2000), id="mounts"),
        pytest.param(BASE + repeated("  m{number}: {{remote: 'q:b', path: /mnt/m}}\n", 90), id="wrong-mounts"),
        pytest.param(
            BASE + "apps:\n  a:\n    command: [x]\n    needs:\n" + repeated("    - w{number}\n"), id="unknown-needs"
        ),
        pytest.param(
            BASE + "apps:\n  a:\n    command: [x]\n    environment:\n" + repeated("      A{number}: 'x://a:b@c'\n"),
            id="secrets-in-the-open",
        ),
        pytest.param(
            f"remotes:\n  r:\n    type: s3\n    {'secre_t_' * 9000}: x\n" + repeated("    opt-{number}: x\n"),
            id="options-of-a-remote",
        ),
        pytest.param(BASE + "    options:\n" + repeated("      rc-{number}: x\n"), id="refused-flags"),
        pytest.param(BASE + repeated("key: x\n"), id="one-key-again-and-again"),
        pytest.param("a: " + "[" * 400_000, id="brackets"),
        pytest.param("control:\n" * 100_000, id="sections"),
        pytest.param("a：" * 300_000, id="full-width"),
        pytest.param(f"{'-' * 79}：" * 10_000, id="full-width-after-much"),
        pytest.param("a: &a [" + "x," * 500 + "]\nb: [" + "*a," * 500 + "]\n", id="aliases"),
    ],
)
def test_the_work_for_a_file_is_bounded(text: str) -> None:
    began = time.process_time()
    found = inspect_text(text, PLACES)
    control_socket.named(text)
    assert time.process_time() - began < CPU_S
    assert 0 < len(found.problems) <= MAX_PROBLEMS + 1
    assert sum(len(str(problem)) for problem in found.problems) < 60_000


def test_a_problem_does_not_repeat_a_value_of_any_length() -> None:
    (problem,) = inspect_text(BASE.replace("/mnt/m", "x" * 5000), PLACES).problems
    assert (problem.path, len(problem.text)) == ("mounts.m.path", MAX_TEXT)


def test_only_so_many_sections_are_looked_into() -> None:
    """Each is read as YAML of its own when the whole is none."""
    text = "control:\n" * 100_000
    assert len(list(control_socket._parts(text))) == 1 + control_socket.MAX_SECTIONS
    assert control_socket.named(text) == ""


def test_what_is_not_shown_is_reported() -> None:
    text = BASE + repeated("  m{number}: {{remote: 'q:b', path: /mnt/m{number}}}\n", MAX_PROBLEMS + 10)
    found = inspect_text(text, PLACES)
    assert [problem.line for problem in found.problems] == [0, *range(5, 5 + MAX_PROBLEMS)]
    assert str(MAX_PROBLEMS) in found.problems[0].text


def test_warnings_do_not_hide_a_problem() -> None:
    """However many of them are found before it."""
    slow = "  m{number}: {{remote: 'r:b', path: /mnt/m{number}, drain: 1s}}\n"
    text = BASE + repeated(slow, MAX_PROBLEMS + 10) + "  z: {remote: 'r:b', path: /mnt/z, cache: {max_size: 0}}\n"
    found = inspect_text(text, PLACES)
    assert [problem.path for problem in found.problems] == ["mounts.z.cache.max_size"]
    assert len(found.warnings) == MAX_PROBLEMS + 1
