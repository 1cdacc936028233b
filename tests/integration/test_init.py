"""The parent of the daemon: passes on its end and its signals, reaps what is reparented, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mountd.process import orphans
from mountd.process.reaper import LAST_PATIENCE_S
from tests.support.daemon import Daemon
from tests.support.init import Init
from tests.support.wait import until

BORN_DEAF = ("env", "--ignore-signal", "--block-signal")
Start = Callable[..., Init]


@pytest.fixture
def start() -> Iterator[Start]:
    inits: list[Init] = []

    def make(body: str, *wrap: str) -> Init:
        inits.append(Init(body, *wrap))
        return inits[-1]

    yield make
    for init in inits:
        init.close()


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ("return 0", 0, ""),
        ("return 7", 7, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('words')", 1, ""),
        ("sys.exit()", 0, ""),
        ("raise ZeroDivisionError('of a bug')", 20, "ZeroDivisionError: of a bug"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9, ""),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 128 + 11, ""),
    ],
)
def test_its_end_is_passed_on(start: Start, body: str, code: int, says: str) -> None:
    ended, errors = start(body).end()
    assert ended == code
    assert says in errors


def test_what_it_printed_last_is_not_lost(start: Start) -> None:
    init = start("sys.stdout.write('last words'); return 0")
    assert init.line() == "last words"


NOTE_SIGNALS = """
    seen = []
    def note(number, _):  # not by print: it may be in the middle of printing
        os.write(1, f'{signal.Signals(number).name}{chr(10)}'.encode())
        seen.append(number)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, note)
    say('daemon', os.getpid())
    while len(seen) < 4:
        time.sleep(0.05)
    return 5
"""


def test_one_that_has_ended_and_is_held_by_the_kernel_is_not_waited_for(start: Start) -> None:
    init = start(
        """
        left = subprocess.Popen(['sleep', '60']).pid
        say(os.getpid(), left)
        os._exit = lambda code: time.sleep(60)  # as if a thread were on a disk that is frozen
        from mountd.process import init
        init.leave(9)
        """
    )
    pids = [int(word) for word in init.line().split()]
    began = time.monotonic()
    code, errors = init.end()
    assert code == 9, errors
    assert LAST_PATIENCE_S <= time.monotonic() - began < 45
    assert not any(orphans.alive(pid) for pid in pids)


@pytest.mark.parametrize("wrap", [(), BORN_DEAF], ids=["", "deaf"])
def test_signals_are_forwarded(start: Start, wrap: tuple[str, ...]) -> None:
    init = start(NOTE_SIGNALS, *wrap)
    assert init.line().startswith("daemon")
    for number in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"):
        os.kill(init.pid, signal.Signals[number])
        assert init.line() == number
    assert init.end()[0] == 5


def test_a_signal_without_a_meaning_is_harmless(start: Start) -> None:
    init = start("signal.pthread_sigmask(signal.SIG_BLOCK, {15}); say('daemon'); signal.sigwait({15}); return 6")
    init.line()
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        os.kill(init.pid, number)
    assert init.end()[0] == 6


def test_a_signal_that_it_does_not_expect_ends_it_as_a_shell_says(start: Start) -> None:
    init = start("say('daemon', os.getpid()); time.sleep(60)")
    init.line()
    os.kill(init.pid, signal.SIGTERM)
    assert init.end()[0] == 128 + 15


def test_a_ctrl_c_reaches_it_once(start: Start) -> None:
    """A terminal signals a whole process group: the daemon must not be in it."""
    init = start("say('daemon', os.getpid(), os.getsid(0)); signal.pause()")
    _, daemon, session = init.line().split()
    assert daemon == session
    assert os.getsid(init.pid) != int(session)


def test_it_blocks_no_signals(start: Start) -> None:
    init = start("say(len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))); return 0")
    assert init.line() == "0"


def test_what_its_caller_ignores_or_blocks_is_heard_all_the_same(start: Start) -> None:
    """`nohup`, a background job of a script, and a parent that ignores SIGCHLD."""
    init = start(
        """
        words = 'SigIgn SigBlk'.split()
        lines = [line.split() for line in open('/proc/self/status') if line.startswith(tuple(words))]
        say(*(hex(int(line[1], 16) & ~(1 << 12 | 1 << 24)) for line in lines))  # without what Python ignores
        say('daemon', subprocess.Popen(['sh', '-c', 'exit 9']).wait())
        signal.pause()
        """,
        *BORN_DEAF,
    )
    assert init.line() == "0x0 0x0"
    assert init.line() == "daemon 9"
    os.kill(init.pid, signal.SIGINT)
    code, errors = init.end()
    assert code != 0
    assert "KeyboardInterrupt" in errors


def test_what_it_leaves_is_ended(start: Start) -> None:
    init = start(
        """
        detached = detach('sleep', '60')
        deaf = detach('sh', '-c', 'trap "" TERM INT HUP; while :; do sleep 1; done')
        child = subprocess.Popen(['sleep', '60'], start_new_session=True).pid
        say(detached, deaf, child)
        return 4
        """
    )
    left = [int(word) for word in init.line().split()]
    assert len(left) == 3
    assert init.end()[0] == 4
    assert not any(orphans.alive(pid) for pid in left)


HELPER = ("sh", "-c", 'sleep 61 >/dev/null 2>&1 & exec "$@"', "sh")
"""Children survive an exec."""
ENDS = 'true & while kill -0 $! && ! grep -q "^State:.Z" /proc/$!/status; do :; done 2>/dev/null; exec "$@"'


def test_a_child_from_before_is_not_what_it_leaves(start: Start) -> None:
    init = start(
        """
        from mountd.process.init import subreaper
        say('daemon', subreaper(), detach('sleep', '60'))
        signal.pause()
        """,
        *HELPER,
    )
    _, subreaper, detached = init.line().split()
    assert subreaper == "None", "what is left to it may be the helper's"

    def sleeping() -> list[int]:
        return [pid for pid in children(init.pid) if Path(f"/proc/{pid}/cmdline").read_text() == "sleep\x0061\0"]

    (helper,) = until(sleeping, 60, "the helper's child to be what it executes")
    os.kill(init.pid, signal.SIGTERM)
    try:
        init.end()
        assert not orphans.alive(int(detached))
        assert orphans.alive(helper)
    finally:
        os.kill(helper, signal.SIGKILL)


def test_a_child_from_before_that_has_ended_leaves_nothing(start: Start) -> None:
    init = start("from mountd.process.init import subreaper; say(subreaper() == os.getppid())", "sh", "-c", ENDS, "sh")
    assert init.line() == "True"


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_also_after_it_was_killed(start: Start) -> None:
    init = start("say(os.getpid(), detach('sleep', '60')); signal.pause()")
    daemon, detached = map(int, init.line().split())
    os.kill(daemon, signal.SIGKILL)
    assert init.end()[0] == 128 + 9
    assert not orphans.alive(detached)


def test_what_is_reparented_is_reaped_and_its_own_children_are_left_to_it(start: Start) -> None:
    init = start(
        """
        for _ in range(20):
            detach('true')
        codes = [subprocess.Popen(['sh', '-c', 'exit 9']).wait() for _ in range(20)]
        say('codes', *codes)
        signal.pause()
        """
    )
    assert init.line() == "codes" + 20 * " 9"

    def zombies() -> list[int]:
        return [pid for pid in children(init.pid) if not orphans.alive(pid)]

    until(lambda: zombies() == [], 60, "no zombies")


def test_it_gets_a_signal_when_its_parent_dies(start: Start, tmp_path: Path) -> None:
    init = start(
        f"""
        def last(number, _):
            open('{tmp_path}/reported', 'w').write(signal.Signals(number).name)
            os._exit(0)
        signal.signal(signal.SIGTERM, last)
        say('daemon', os.getpid())
        while True:
            time.sleep(60)
        """
    )
    daemon = int(init.line().split()[1])
    os.kill(init.pid, signal.SIGKILL)
    assert init.end()[0] == -signal.SIGKILL
    until(lambda: not orphans.alive(daemon), 60, "the daemon to end")
    assert (tmp_path / "reported").read_text() == "SIGTERM"


ALL = "<&- >&- 2>&-"
SOME = [
    pytest.param(each, marks=pytest.mark.thorough) for each in ("<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-")
]


@pytest.mark.parametrize("closed", [ALL, *SOME])
def test_closed_streams_lead_nowhere(tmp_path: Path, closed: str) -> None:
    """What a command says is lost then, and nothing else."""
    mountd = f"'{sys.executable}' -m mountd"
    code = f"""
        {mountd} --version {closed}; echo $? >>'{tmp_path}/codes'
        {mountd} nonsense {closed}; echo $? >>'{tmp_path}/codes'
    """
    subprocess.run(["/bin/sh", "-c", code], capture_output=True, timeout=60, check=True)
    assert (tmp_path / "codes").read_text().split() == ["0", "2"]


@pytest.mark.parametrize(("command", "code"), [("--version", 1), ("nonsense", 2)])
def test_an_output_that_cannot_be_written(command: str, code: int) -> None:
    with open("/dev/full", "w") as full:
        out, err = (full, None) if code == 1 else (None, full)
        argv = [sys.executable, "-m", "mountd", command]
        done = subprocess.run(argv, stdout=out, stderr=err, timeout=60, check=False)
    assert done.returncode == code


def test_a_reader_of_errors_that_goes_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "mountd", "nonsense"], stderr=writer, timeout=60, check=False)
    os.close(writer)
    assert done.returncode == 2


@pytest.mark.fuse
@pytest.mark.parametrize("closed", [ALL, *SOME])
def test_a_daemon_with_closed_streams(daemon: Daemon, closed: str) -> None:
    """No socket, and no journal, gets the number of a standard stream: what others write there would go into it."""
    daemon.wrap = ("/bin/sh", "-c", f'exec "$@" {closed}', "sh")
    status = daemon.start_ready()
    for pid in (status["pid"], daemon.process.pid if daemon.process else 0):
        for number in range(3):
            leads = os.readlink(f"/proc/{pid}/fd/{number}")
            assert leads in ("/dev/null", str(daemon.log))
    assert daemon.stop() == 0
