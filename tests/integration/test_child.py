"""Real children: how they end, what is kept of what they say, what they are given, and that their group hears us."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from mountd.errors import CommandTimeout
from mountd.process import tool
from mountd.process.child import RING_LINES, Exit, Ring, User, spawn
from mountd.process.launch import CANNOT_ENTER
from mountd.process.lines import LINE_BYTES
from mountd.process.tool import Outcome
from tests.support.spawner import ENVIRONMENT, SOON_S, Spawner, ended, spawning, until


@pytest.fixture
async def spawner() -> AsyncIterator[Spawner]:
    async with spawning() as made:
        yield made


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def open_files() -> dict[int, str]:
    """Our open files, without the one that lists them."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
    return found


# -- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "exit_", "says"),
    [
        ("exit 0", Exit(0), "exit code 0"),
        ("exit 3", Exit(3), "exit code 3"),
        ("exit 255", Exit(255), "exit code 255"),
        ("kill -TERM $$", Exit(-15), "signal SIGTERM"),
        ("kill -KILL $$", Exit(-9), "signal SIGKILL"),
        ("kill -35 $$", Exit(-35), "signal 35"),
    ],
)
async def test_exits(spawner: Spawner, script: str, exit_: Exit, says: str) -> None:
    child = spawner.sh(script)
    assert await ended(child) == exit_
    assert child.exit == exit_
    assert str(exit_) == says
    assert await ended(child) == exit_, "it may be asked again"


async def test_what_cannot_be_run(spawner: Spawner, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "script").write_text("#!/nowhere/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    for program, code in [("no-such-program", 127), ("/no/such/program", 127), (str(tmp_path / "plain"), 126)]:
        assert await ended(spawner(program)) == Exit(code), program
    assert (await ended(spawner(str(tmp_path / "script")))).code in (126, 127)
    assert await ended(spawner("true", directory=str(tmp_path / "none"))) == Exit(CANNOT_ENTER)
    assert await ended(spawner("true", directory=str(tmp_path / "plain"))) == Exit(CANNOT_ENTER)


async def test_no_file_of_ours_stays_open_or_is_passed_on(spawner: Spawner) -> None:
    before = open_files()
    for _ in range(20):
        child = spawner("true")
        await ended(child)
        child.release()
    assert open_files() == before
    with open("/dev/null") as inherited:
        os.set_inheritable(inherited.fileno(), True)
        await ended(spawner.sh("ls /proc/$$/fd"))
    assert spawner.lines == ["0", "1", "2"]


async def test_a_child_that_cannot_be_watched_does_not_live_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pid: int) -> int:
        pids.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    pids: list[int] = []
    monkeypatch.setattr(os, "pidfd_open", fail)
    before = open_files()
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EMFILE):
        spawn(["sleep", "60"], ENVIRONMENT, print)
    await until(lambda: not lives(pids[0]), "it to end")
    assert open_files() == before


async def test_zombies_are_reaped(spawner: Spawner) -> None:
    children = [spawner.sh("exit 1") for _ in range(10)]
    await asyncio.gather(*(ended(child) for child in children))
    assert not any(os.path.exists(f"/proc/{child.pid}") for child in children)


# -- what it says -----------------------------------------------------------------------------------------------------


async def test_both_streams_line_by_line(spawner: Spawner) -> None:
    await ended(spawner.sh(r"printf 'one\n\ntwo\r\n'; echo three >&2; printf '声\377\n'; printf 'no end'"))
    assert spawner.lines == ["one", "two", "three", "声\ufffd", "no end"]


async def test_a_line_comes_when_it_is_whole(spawner: Spawner) -> None:
    spawner.sh("printf hel; sleep 0.05; echo lo; exec sleep 60")
    await spawner.says("hello")


async def test_long_lines_are_cut_at_the_bound(spawner: Spawner) -> None:
    script = """
        head -c 300000 /dev/zero | tr '\\0' x; echo; echo after
        head -c "$1" /dev/zero | tr '\\0' y; echo; echo last
    """
    await ended(spawner.sh(script, str(LINE_BYTES)))
    assert [(line[0], len(line)) for line in spawner.lines] == [
        ("x", LINE_BYTES),
        ("a", 5),
        ("y", LINE_BYTES),
        ("l", 4),
    ]


@pytest.mark.parametrize("size", [1, 100, LINE_BYTES - 1, LINE_BYTES, LINE_BYTES + 1, 65536, 200_000])
async def test_a_cut_line_is_one_line_however_it_arrives(spawner: Spawner, size: int) -> None:
    await ended(spawner.sh("head -c $1 /dev/zero | tr '\\0' x; sleep 0.01; echo tail", str(size)))
    assert spawner.lines == [("x" * size + "tail")[:LINE_BYTES]]


async def test_a_flood_stays_bounded_and_the_loop_turns(spawner: Spawner) -> None:
    ring, turns = Ring(), 0
    line = "0123456789abcdef" * 6
    child = spawner.sh(
        'yes "$1" | head -n 200000; head -c 20000000 /dev/zero; echo; echo end', line, on_line=ring.append
    )
    while child.exit is None:
        await asyncio.sleep(0.001)
        turns += 1
    kept = ring.last(10**9)
    assert len(kept) == RING_LINES
    assert max(len(one.text) for one in kept) <= LINE_BYTES
    assert [one.text[:1] for one in kept[-3:]] == ["0", "\0", "e"]
    assert turns > 100, "the loop stood still until the end of the flood"


async def test_of_what_comes_at_once_the_last_lines_are_kept_and_the_others_counted(spawner: Spawner) -> None:
    writes = "import os; os.write(1, b'x\\n' * 500)"  # few enough bytes to come as one piece
    await ended(spawner(sys.executable, "-S", "-c", writes, flood_lines=10))
    left_out, *kept = spawner.lines
    assert (re.findall(r"\d+", left_out), kept) == (["490"], ["x"] * 10)


async def test_what_it_said_last_is_there_when_it_has_ended(spawner: Spawner) -> None:
    for number in range(20):
        await ended(spawner.sh(f"seq 2000; echo last {number}; exit 1"))
        assert spawner.lines[-1] == f"last {number}"


async def test_a_grandchild_that_holds_the_pipe_does_not_hold_us(spawner: Spawner) -> None:
    child = spawner.sh("sleep 60 & echo $!; exit 3")
    assert await ended(child) == Exit(3)
    before = open_files()
    child.release()
    assert len(before.keys() - open_files().keys()) == 1
    assert lives(int(spawner.lines[0]))
    child.signal(signal.SIGKILL)  # its group, of which one still lives
    await until(lambda: not lives(int(spawner.lines[0])), "the grandchild to end")


async def test_a_child_that_closes_its_output_never_makes_us_read_what_is_not_its_own(spawner: Spawner) -> None:
    before = open_files()
    child = spawner.sh("echo here; exec >&- 2>&-; sleep 60")
    (output,) = [fd for fd, what in open_files().items() if fd not in before and what.startswith("pipe:")]
    await until(lambda: output not in open_files(), "its closed output to be seen")
    reader, writer = os.pipe()
    os.dup2(reader, output)  # now the number is somebody else's, and blocks
    try:
        os.write(writer, b"not yours\n")
        child.signal(signal.SIGTERM)
        assert await ended(child) == Exit(-15)
        assert os.read(reader, 100) == b"not yours\n"
    finally:
        for fd in {reader, writer, output}:
            os.close(fd)
    assert spawner.lines == ["here"]


def test_the_ring_and_its_followers() -> None:
    ring, heard = Ring(3), []
    stop = ring.follow(lambda line: heard.append(line.text))
    for text in "abcd":
        ring.append(text)
    stop()
    ring.append("e")
    assert heard == ["a", "b", "c", "d"]
    assert [line.text for line in ring.last(10)] == ["c", "d", "e"]
    assert [line.text for line in ring.last(1)] == ["e"]
    assert ring.last(0) == ring.last(-1) == []


def test_a_line_that_comes_in_two_pieces_is_heard_of_once() -> None:
    """As Python writes it without a buffer: the text, then the end of the line."""
    ring, heard = Ring(), []
    ring.follow(lambda line: heard.append(line.text))
    for text in ("a", "b"):
        ring.show(text)
        assert ring.last(1)[0].text == text
        ring.append(text)
        ring.show("")
    assert heard == ["a", "b"]
    assert [line.text for line in ring.last(10)] == ["a", "b"]


# -- what it is given -------------------------------------------------------------------------------------------------


def parsed(lines: Iterable[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines)


async def test_the_environment_is_what_was_given(spawner: Spawner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOUNTD_TEST_SECRET", "not for children")
    given = {"PATH": "/usr/bin:/bin", "A": "a b\tc", "EMPTY": "", "VOICE": "声", "HOME": "/nowhere"}
    await ended(spawner("env", environment=given, directory="/tmp"))
    assert parsed(spawner.lines) == given


async def test_the_words_are_what_was_given(spawner: Spawner) -> None:
    words = ["a b", "$HOME", "`id`", "'q\"", "*", "", "-n", "; exit 1", "声"]
    await ended(spawner("printf", "<%s>\\n", *words))
    assert spawner.lines == [f"<{word}>" for word in words]


@pytest.mark.parametrize("name", ["plain", "with space", "-leading", "声", "a;b'c\"d"])
async def test_the_directory(spawner: Spawner, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    await ended(spawner("pwd", "-P", directory=str(tmp_path / name)))
    assert spawner.lines == [str(tmp_path / name)]


async def test_a_program_is_looked_up_in_its_directory(spawner: Spawner, tmp_path: Path) -> None:
    (tmp_path / "start.sh").write_text("#!/bin/sh\necho started\n")
    (tmp_path / "start.sh").chmod(0o755)
    assert await ended(spawner("./start.sh", directory=str(tmp_path))) == Exit(0)
    assert spawner.lines == ["started"]


@pytest.mark.root
async def test_it_drops_to_its_user(spawner: Spawner, tmp_path: Path) -> None:
    entry = pwd.getpwnam("nobody")
    user = User("nobody", entry.pw_uid, entry.pw_gid, (entry.pw_gid, 4242), entry.pw_dir)
    await ended(spawner.sh("id -u; id -ru; id -g; id -rg; id -G", user=user))
    uid, gid = str(entry.pw_uid), str(entry.pw_gid)
    assert spawner.lines == [uid, uid, gid, gid, f"{gid} 4242"]
    (tmp_path / "private").mkdir(mode=0o700)
    assert await ended(spawner("true", directory=str(tmp_path / "private"), user=user)) == Exit(CANNOT_ENTER)


# -- signals ----------------------------------------------------------------------------------------------------------


async def test_the_whole_group_is_signalled(spawner: Spawner) -> None:
    child = spawner.sh("sleep 60 & echo $!; sleep 60 & echo $!; echo ready; wait")
    await spawner.says("ready")
    assert os.getpgid(child.pid) == os.getsid(child.pid) == child.pid
    child.signal(signal.SIGTERM)
    assert await ended(child) == Exit(-15)
    await until(lambda: not any(lives(int(pid)) for pid in spawner.lines[:2]), "both of its own children to end")


async def test_a_signal_that_comes_too_late_is_nobodys(spawner: Spawner) -> None:
    child = spawner("true")
    await ended(child)
    child.signal(signal.SIGKILL)


async def test_a_number_that_is_in_use_again_is_somebody_elses(spawner: Spawner) -> None:
    child, stranger = spawner("true"), spawner("sleep", "60")
    await ended(child)
    child.pid = stranger.pid  # as the kernel may do, but not when it is asked to
    child.signal(signal.SIGKILL)
    await asyncio.sleep(0.1)
    assert stranger.exit is None


# -- a short command --------------------------------------------------------------------------------------------------


async def test_a_tool_and_its_outcome() -> None:
    assert await tool.run(["sh", "-c", "echo out; echo err >&2; exit 4"], timeout_s=SOON_S) == Outcome(
        4, output="out\nerr"
    )
    missing = await tool.run(["no-such-program"], timeout_s=SOON_S)
    assert (missing.code, str(missing.not_started)) == (127, "command not found: no-such-program")
    assert (await tool.run(["sh", "-c", "exit 127"], timeout_s=SOON_S)).not_started is None


async def test_a_tool_inherits_nothing_but_a_path_and_a_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOUNTD_TEST_SECRET", "not for tools")
    outcome = await tool.run(["env"], timeout_s=SOON_S)
    assert parsed(outcome.output.splitlines()) == {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    given = await tool.run(["/usr/bin/env"], timeout_s=SOON_S, environment={"A": "b"})
    assert given.output == "A=b"


async def test_a_tool_that_overstays_is_killed_with_what_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(CommandTimeout):
        await tool.run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], timeout_s=3)
    assert time.monotonic() - began < SOON_S + 10
    await until(lambda: not lives(int((tmp_path / "pid").read_text())), "what it started to end")


async def test_a_tool_that_floods_is_bounded() -> None:
    script = "print('x' * 5000); [print('y' * 5000) for _ in range(2000)]"
    outcome = await tool.run([sys.executable, "-c", script], timeout_s=SOON_S)
    assert outcome.code == 0
    assert outcome.output.startswith("x")
    assert len(outcome.output) <= tool.MAX_OUTPUT_BYTES + 1000  # and the ends of lines
