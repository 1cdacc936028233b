"""How a child becomes its program: found as execvp finds it, with default signals; and why it never ran."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mountd.process import launch
from mountd.process.child import Exit, User, _launch, _Order
from tests.support.spawner import ENVIRONMENT, Spawner, ended, spawning

DENIED = os.strerror(errno.EACCES).lower()
NOBODY = User("nobody", 65534, 65534, (), "/")


@pytest.fixture
async def spawner() -> AsyncIterator[Spawner]:
    async with spawning() as made:
        yield made


@pytest.mark.parametrize(
    ("make", "program", "step", "says"),
    [
        ("", "no-such-program", launch.MISSING, "no-such-program"),
        ("", "./none", launch.MISSING, "./none"),
        ("echo text >it", "./it", launch.PROGRAM, f"./it: {DENIED}"),
        ("mkdir it", "./it", launch.PROGRAM, f"./it: {DENIED}"),
        ("printf '#!/no/where\\n' >it; chmod +x it", "./it", launch.INTERPRETER, "./it: "),
        ("printf '#!/bin/sh\\r\\n' >it; chmod +x it", "./it", launch.INTERPRETER, "./it: "),
        ("mkdir bin; printf '#!/no\\n' >bin/it; chmod +x bin/it", "it", launch.INTERPRETER, "it: "),
    ],
)
async def test_why_a_program_never_ran(
    spawner: Spawner, tmp_path: Path, make: str, program: str, step: str, says: str
) -> None:
    await ended(spawner.sh(make, directory=str(tmp_path)))
    environment = {**ENVIRONMENT, "PATH": f"{tmp_path}/bin:{ENVIRONMENT['PATH']}"}
    exit_ = await ended(spawner(program, directory=str(tmp_path), environment=environment))
    assert exit_.not_started is not None
    assert exit_.not_started.step == step
    assert says in exit_.not_started.text
    assert str(exit_) == exit_.not_started.text
    assert spawner.lines == [], "what mountd has to say is not said in the program's name"


@pytest.mark.parametrize("code", [125, 126, 127])
async def test_an_exit_code_of_the_program_is_its_own(spawner: Spawner, code: int) -> None:
    exit_ = await ended(spawner.sh(f"exit {code}"))
    assert (exit_.code, exit_.not_started, str(exit_)) == (code, None, f"exit code {code}")


async def test_a_directory_or_a_user_that_cannot_be_had(spawner: Spawner, tmp_path: Path) -> None:
    missing = (await ended(spawner("true", directory=str(tmp_path / "none")))).not_started
    assert missing is not None
    assert missing.step == launch.DIRECTORY
    assert f"{tmp_path}/none: {os.strerror(errno.ENOENT).lower()}" in missing.text
    nobody = User("tts", 2**32 - 1, 65534, (), "/")  # no user may have this number
    refused = (await ended(spawner("true", user=nobody))).not_started
    assert refused is not None
    assert (refused.step, "user tts" in refused.text) == (launch.USER, True)


async def test_programs_are_found_as_execvp_finds_them(spawner: Spawner, tmp_path: Path) -> None:
    script = """
        mkdir none one two; echo 'echo "no first line: $1"' >two/it; echo text >one/it; chmod 755 two/it
        mkdir one/both two/both; printf '#!/bin/sh\necho here\n' >here; chmod 755 here
    """
    await ended(spawner.sh(script, directory=str(tmp_path)))
    path = ":".join(f"{tmp_path}/{name}" for name in ("none", "one", "two"))
    assert await ended(spawner("it", "word", environment={"PATH": path}, directory=str(tmp_path))) == Exit(0)
    assert await ended(spawner("here", environment={"PATH": f"{path}:"}, directory=str(tmp_path))) == Exit(0)
    assert await ended(spawner("true", environment={})) == Exit(0)
    assert spawner.lines == ["no first line: word", "here"]
    both = await ended(spawner("both", environment={"PATH": path}))
    assert both.not_started is not None
    assert (both.not_started.step, f"both: {DENIED}" in both.not_started.text) == (launch.PROGRAM, True)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Ignores and blocks what it can, as a caller of mountd may."""
    may = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
    before = {number: signal.getsignal(number) for number in may}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, may)
    try:
        for number in may:
            signal.signal(number, signal.SIG_IGN)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.mark.parametrize("user", [None, pytest.param(NOBODY, marks=pytest.mark.root)])
def test_it_has_the_limit_of_open_files_that_mountd_was_started_with(
    monkeypatch: pytest.MonkeyPatch, user: User | None
) -> None:
    """From its first moment, as any user: nobody else sets it."""
    monkeypatch.setattr("mountd.process.child.DESCRIPTORS", (200, 300))
    order = _Order(["sh", "-c", "ulimit -Sn; ulimit -Hn"], ENVIRONMENT, "/", user, None)
    process = _launch(order, ENVIRONMENT, -1)
    try:
        assert process.communicate(timeout=60)[0] == b"200\n300\n"
    finally:
        order.close()


async def test_it_reads_nothing_and_ignores_nothing(spawner: Spawner) -> None:
    assert await ended(spawner("cat")) == Exit(0)
    with deaf():
        child = spawner("grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status")
    await ended(child)
    assert [line.split()[1].strip("0") for line in spawner.lines] == ["", ""]


async def test_a_ctrl_c_in_the_moment_of_its_start_ends_it_quietly(spawner: Spawner) -> None:
    """What launches it is Python, which would answer with a traceback in the log of the app."""
    children = [spawner("sleep", "60") for _ in range(8)]
    for number, child in enumerate(children):
        await asyncio.sleep(0.002 * number)
        child.signal(signal.SIGINT)
    assert {(await ended(child)).code for child in children} == {-signal.SIGINT}
    assert spawner.lines == []


async def test_it_enters_its_cgroup_where_it_can(spawner: Spawner, tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    assert await ended(spawner("true", cgroup=tmp_path)) == Exit(0)
    assert (tmp_path / "cgroup.procs").read_text() == "0", "the process that writes it is meant"
    assert await ended(spawner("true", cgroup=tmp_path / "none")) == Exit(0)


async def test_what_it_makes_has_the_rights_that_its_umask_leaves(spawner: Spawner) -> None:
    before = os.umask(0o022)
    try:
        for given in ({"umask": 0o027}, {}):
            await ended(spawner.sh("umask", **given))
    finally:
        os.umask(before)
    assert [int(line, 8) for line in spawner.lines] == [0o027, 0o022]
