"""Processes of a previous run: all that carry the mark end, wherever they hide; nothing else is touched."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.app.belonging import Belonging
from mountd.errors import Unavailable
from mountd.process import family, orphans, tool
from mountd.process.instance import Instance
from tests.support.init import Init
from tests.support.wait import until

SCRIPT = [sys.executable, "-I", "-S", orphans.__file__]
SLEEPS = "echo up; exec sleep 60"


class Brood:
    """Processes with marks; they end with the test, and so does whatever carries the same marks."""

    def __init__(self) -> None:
        self.instance = f"t{secrets.token_hex(6)}"
        self._all: list[subprocess.Popen[str]] = []
        self._instances: set[str] = set()

    def start(self, script: str, *, instance: str | None = None, name: str = "webui") -> subprocess.Popen[str]:
        """`script` in a session of its own; it must print a line when it is up."""
        environment = {"PATH": os.environ["PATH"]}
        if instance is not None:
            environment |= {orphans.INSTANCE: instance, orphans.NAME: name}
            self._instances.add(instance)
        process = subprocess.Popen(
            ["/bin/sh", "-c", script], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._all.append(process)
        return process

    def marked(self, script: str = SLEEPS, **more: str) -> subprocess.Popen[str]:
        process = self.start(script, instance=self.instance, **more)
        assert process.stdout is not None
        assert process.stdout.readline()
        if script == SLEEPS:  # it says so just before
            until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", 60, "it to be what it executes")
        return process

    def close(self) -> None:
        for instance in self._instances:
            subprocess.run([*SCRIPT, instance], timeout=60, check=False, capture_output=True)
        for process in self._all:
            process.kill()
            process.communicate()


@pytest.fixture
def brood() -> Iterator[Brood]:
    brood = Brood()
    yield brood
    brood.close()


def end(*words: str) -> list[str]:
    done = subprocess.run([*SCRIPT, *words], timeout=60, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def ended(process: subprocess.Popen[str]) -> int:
    return process.wait(60)


def test_what_carries_the_mark_ends_and_is_reported(brood: Brood) -> None:
    processes = [brood.marked() for _ in range(3)]
    assert end(brood.instance) == [f"{process.pid} sleep" for process in sorted(processes, key=lambda it: it.pid)]
    assert {ended(process) for process in processes} == {-signal.SIGKILL}
    assert end(brood.instance) == []


def test_also_what_hid_in_another_session(brood: Brood, tmp_path: Path) -> None:
    daemonised = f"setsid sh -c 'setsid sleep 60 & echo $! > {tmp_path}/pid' ; echo up"
    parent = brood.marked(daemonised)
    assert ended(parent) == 0
    hidden = int((tmp_path / "pid").read_text())
    until(lambda: os.getsid(hidden) == hidden, 60, "a session of its own")
    until(lambda: Path(f"/proc/{hidden}/comm").read_text() == "sleep\n", 60, "its program")
    assert end(brood.instance) == [f"{hidden} sleep"]
    until(lambda: not orphans.alive(hidden), 60, "the hidden one to end")


@pytest.mark.parametrize(
    "script",
    [
        "trap '' TERM INT HUP; echo up; while :; do sleep 1; done",
        "echo up; kill -STOP $$; exec sleep 60",
        "while :; do sleep 60 & echo up; sleep 0.01; done",
    ],
    ids=["deaf", "stopped", "breeding"],
)
def test_also_what_resists(brood: Brood, script: str) -> None:
    process = brood.marked(script)
    assert f"{process.pid} sh" in end(brood.instance)
    assert ended(process) == -signal.SIGKILL
    assert orphans.Meant(brood.instance).find() == []


def test_what_is_not_ours_is_not_touched(brood: Brood) -> None:
    unmarked = brood.start("exec sleep 60")
    others = [
        brood.start("exec sleep 60", instance=f"{brood.instance}0"),
        brood.start("exec sleep 60", instance=brood.instance[:-1]),
        brood.start("exec sleep 60", instance=brood.instance.upper()),
        brood.start(f"exec sleep 60 # {orphans.INSTANCE}={brood.instance}"),
    ]
    ours = brood.marked()
    assert end(brood.instance) == [f"{ours.pid} sleep"]
    assert [process.poll() for process in (unmarked, *others)] == [None] * 5


def test_of_one_name_only(brood: Brood) -> None:
    webui, longer, storage = brood.marked(), brood.marked(name="webui-2"), brood.marked(name="storage")
    assert end(brood.instance, "webui") == [f"{webui.pid} sleep"]
    assert [process.poll() for process in (longer, storage)] == [None, None]
    assert len(end(brood.instance)) == 2


def test_neither_the_asker_nor_what_is_above_it(brood: Brood) -> None:
    """A daemon may itself be a marked child: of a mountd whose app starts another one on the same state."""
    asker = f"{' '.join(SCRIPT)} {brood.instance}; echo still here"
    other = brood.marked()
    process = brood.start(asker, instance=brood.instance)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines() == [f"{other.pid} sleep", "still here"]


def test_one_that_was_seen_is_known_without_its_mark(brood: Brood) -> None:
    """Its number alone is not enough: that may be another's by now."""
    seen, other = brood.start("exec sleep 60"), brood.start("exec sleep 60")
    ((_, started),) = family.of(seen.pid)
    assert end(brood.instance, "webui", f"{other.pid}:{started - 1}", f"{seen.pid}:{started}")[0].startswith(
        f"{seen.pid} "
    )
    assert ended(seen) == -signal.SIGKILL
    assert other.poll() is None


def test_what_is_only_asked_for_lives_on(brood: Brood) -> None:
    process = brood.marked()
    assert end(brood.instance, "webui", "list") == [f"{process.pid} sleep"]
    assert process.poll() is None


ASKS = f"""
import os
loose = detach('sleep', '60')
def asked(word):
    command = [*{SCRIPT!r}, 'none', 'webui', 'list', word]
    return [int(line.split()[0]) for line in subprocess.check_output(command, text=True).splitlines()]
parent = os.getppid()
say(asked(f'loose={{parent}}') == [loose], asked('loose=1') == [], asked(f'loose={{parent + 1}}') == [])
"""
HELPER = ("sh", "-c", 'sleep 61 >/dev/null 2>&1 & exec "$@"', "sh")


@pytest.mark.parametrize("wrap", [(), HELPER], ids=["alone", "beside a helper"])
def test_what_came_loose_is_known_where_the_own_parent_takes_it_in(wrap: tuple[str, ...]) -> None:
    """And what that parent had started before the daemon is not."""
    init = Init(ASKS, *wrap)
    try:
        assert init.line() == "True True True"
    finally:
        children = Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text().split()
        init.close()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def test_what_came_loose_also_ends_where_the_cgroup_could_not_be_entered(tmp_path: Path) -> None:
    (tmp_path / "cgroup").mkdir()
    init = Init(
        f"""
        import asyncio, pathlib
        from mountd.app.belonging import Belonging
        from mountd.process.instance import Instance
        place = pathlib.Path({str(tmp_path)!r})
        belonging = Belonging(Instance.create(place / "state", place / "run"), "webui")
        belonging._cgroup = place / "cgroup"  # it was made, and nobody has entered it
        loose = detach("sleep", "60")
        say(asyncio.run(belonging.end(None, alone=True)) == [f"{{loose}} sleep"])
        """
    )
    try:
        assert init.line() == "True"
    finally:
        init.close()


@pytest.mark.root
def test_what_process_one_takes_in_may_be_anybodys() -> None:
    """Such as what an administrator's commands leave in a container."""
    init = Init(ASKS, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--")
    try:
        assert init.line() == "False True True"
    finally:
        init.close()


NAMED = "import ctypes, sys, time; ctypes.CDLL(None).prctl(15, {name!r}); print('up', flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"x\n1 y", "x\ufffd1 y"), (b"a\rb", "a\ufffdb"), (b"\xff\x1b[2J", "\ufffd\ufffd[2J"), (b"", "")],
)
async def test_no_name_of_a_process_passes_for_another_one(
    brood: Brood, tmp_path: Path, name: bytes, shown: str
) -> None:
    """Each process chooses its own (PR_SET_NAME)."""
    instance = Instance.create(tmp_path / "state", tmp_path / "run")
    brood.instance = instance.id
    process = brood.marked(f'exec {sys.executable} -c "{NAMED.format(name=name)}"')
    assert await Belonging(instance, "webui").find(None) == [process.pid]
    assert await tool.end_orphans(brood.instance) == [f"{process.pid} {shown}"]


BREEDS = """
import os, signal
children = []
for _ in range(700):
    children.append(os.fork())
    if not children[-1]:
        signal.pause()
print(*children, flush=True)
signal.pause()
"""


async def test_each_of_many_is_reported(brood: Brood, tmp_path: Path) -> None:
    instance = Instance.create(tmp_path / "state", tmp_path / "run")
    brood.instance = instance.id
    process = brood.start(f"exec {sys.executable} -S -c '{BREEDS}'", instance=instance.id)
    assert process.stdout is not None
    children = [int(word) for word in process.stdout.readline().split()]
    assert sorted(await Belonging(instance, "webui").find(None)) == sorted([process.pid, *children])


async def test_a_look_that_fails_does_not_pass_for_one_that_found_nothing(brood: Brood) -> None:
    with pytest.raises(Unavailable, match="ValueError"):
        await tool.end_orphans(brood.instance, "webui", ["uid=nobody"])


async def test_as_the_daemon_asks(brood: Brood) -> None:
    process = brood.marked("echo up; exec sleep 60")
    assert await tool.end_orphans(brood.instance, "another") == []
    assert await tool.end_orphans(brood.instance) == [f"{process.pid} sleep"]
