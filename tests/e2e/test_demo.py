"""`mountd demo` as a newcomer uses it: it works, what it prints works as printed, and afterwards nothing is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mountd.client.find import SYSTEM_SOCKET
from mountd.process.instance import Instance
from tests.support import dies_with_us, hold_port
from tests.support.status_keys import STATUS, keys
from tests.support.wait import until

pytestmark = pytest.mark.fuse

PROJECT = Path(__file__).parents[2]
PROGRAM = Path(sys.prefix) / "bin" / "mountd"
READY_S = 60.0
STOP_S = 60.0


class Demo:
    """One `mountd demo` in a room of its own: its own XDG_RUNTIME_DIR and /tmp, unless another demo shares them."""

    def __init__(self, room: Path, *words: str, cwd: Path | None = None, path: str | None = None) -> None:
        self.room = room
        self._held = [hold_port() for _ in range(3)]
        self.port, s3_port, http_port = (held.getsockname()[1] for held in self._held)
        self.out = room / f"out-{self.port}"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("MOUNTD_", "XDG_", "NOTIFY_"))},
            "XDG_RUNTIME_DIR": str(room / "xdg"),
            "TMPDIR": str(room / "tmp"),
            "PATH": path or "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        }
        self.cwd = cwd or room
        ports = ["--port", str(self.port), "--s3-port", str(s3_port), "--http-port", str(http_port)]
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                dies_with_us([str(PROGRAM), "demo", *ports, *words]),
                cwd=self.cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.out.read_text(errors="replace")

    def until_said(self, words: str, timeout_s: float = READY_S) -> None:
        until(lambda: words in self.said or self.process.poll() is not None, timeout_s, f"the demo to say {words!r}")
        assert words in self.said, self.said

    def until_ready(self) -> None:
        self.until_said("Ctrl-C stops it")

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_S)

    def printed(self, word: str) -> str:
        """The line that it printed for this command of mountd."""
        lines = [line.strip() for line in self.said.splitlines() if re.search(rf" --socket .* {word}\b", line)]
        assert len(lines) == 1, self.said
        return lines[0]

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """A line in another terminal, in the directory where the demo was started."""
        return subprocess.run(
            ["sh", "-c", line],
            cwd=self.cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def mountd(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.type(" ".join([str(PROGRAM), *words]))

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for held in self._held:
            held.close()


class Room:
    """Where demos of one test run; looks for what they left, and clears it at the end whatever happened."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="mountd-t-"))
        (self.path / "xdg").mkdir(mode=0o700)
        (self.path / "tmp").mkdir()

    def mounts(self) -> list[str]:
        with open("/proc/self/mountinfo") as table:
            points = [line.split()[4].replace("\\040", " ") for line in table]
        return [point for point in points if point.startswith(f"{self.path}/")]

    def processes(self) -> list[str]:
        """Everything whose command line or environment names this room, but the demos themselves."""
        mark, found = f"{self.path}/".encode(), []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    argv = Path(f"/proc/{entry}/cmdline").read_bytes()
                    if mark in argv + Path(f"/proc/{entry}/environ").read_bytes():
                        found.append(f"{entry} {argv.replace(bytes(1), b' ').decode(errors='replace')}")
                except OSError:
                    continue
        return found

    def registered(self) -> list[Path]:
        return list((self.path / "xdg").glob("mountd-demos-*/*"))

    def assert_empty(self) -> None:
        assert self.mounts() == []
        assert self.processes() == []
        assert self.registered() == []
        assert list((self.path / "tmp").iterdir()) == []

    def close(self) -> None:
        orphans = Path(sys.modules["mountd.process.instance"].__file__ or "").with_name("orphans.py")
        for root in (self.path / "tmp").iterdir():
            words = [sys.executable, "-I", "-S", str(orphans), Instance.of(root / "state", root / "run").id]
            subprocess.run(words, timeout=20, check=False)
        for point in reversed(self.mounts()):
            subprocess.run(["fusermount3", "-uz", point], timeout=20, check=False)
        shutil.rmtree(self.path, ignore_errors=True)


@pytest.fixture
def room() -> Iterator[Room]:
    made = Room()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def make_demo(room: Room) -> Iterator[Callable[..., Demo]]:
    with ExitStack() as stack:

        def make(*words: str, **changes: Any) -> Demo:
            demo = Demo(room.path, *words, **changes)
            stack.callback(demo.close)
            return demo

        yield make


def test_it_works_as_printed_and_leaves_nothing(make_demo: Callable[..., Demo], room: Room) -> None:
    demo = make_demo()
    demo.until_ready()
    assert json.loads(demo.page("/config"))["version"] == "v23"
    page = demo.page("/")
    assert "<html" in page
    assert "WebUI" in page
    shown = demo.type(demo.printed("status"))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "ready, Healthy" in shown.stdout
    document = json.loads(demo.type(f"{demo.printed('status')} -o json").stdout)
    assert keys(document) == STATUS
    assert (document["schema"], document["ready"], document["reasons"]) == (1, True, [])

    switched = demo.type(demo.printed("switch"))
    assert switched.returncode == 0, switched.stderr
    assert json.loads(demo.page("/config"))["version"] == "v22"
    curl = next(line.strip() for line in demo.said.splitlines() if line.strip().startswith("curl "))
    if shutil.which("curl"):
        assert json.loads(demo.type(curl).stdout)["version"] == "v22"
    for word in ("versions", "rollback", "logs"):
        typed = demo.type(demo.printed(word))
        assert (typed.returncode, bool(typed.stdout)) == (0, True), typed.stderr
    assert json.loads(demo.page("/config"))["version"] == "v23"
    check_login(demo)

    assert demo.interrupt() == 0
    room.assert_empty()


def check_login(demo: Demo) -> None:
    """With the token of the file that it names, at the address of the dashboard that it prints."""
    address, file = re.findall(r"the dashboard +(http://\S+/) +\(its token: the last word of (\S+)\)", demo.said)[0]
    token = Path(file).read_text().split()[-1]
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert token not in demo.said
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert b"/dashboard/app.js" in answer.read()
    body, headers = json.dumps({"token": token}).encode(), {"Origin": address.rstrip("/")}
    request = urllib.request.Request(f"{address}api/v1/login", body, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer)["role"] == "operator"


@pytest.mark.thorough
@pytest.mark.parametrize("where", [pytest.param("project", marks=pytest.mark.long), "path", "spaces"])
def test_the_printed_commands_fit_where_it_was_started(make_demo: Callable[..., Demo], room: Room, where: str) -> None:
    """In the checkout, with mountd on the PATH, and with a directory whose name has a space."""
    if where == "project":
        demo = make_demo(cwd=PROJECT)
    elif where == "path":
        demo = make_demo(path=f"{PROGRAM.parent}:/usr/bin:/bin")
    else:
        demo = make_demo("--directory", str(room.path / "tmp" / "my demo"))
    demo.until_ready()
    line = demo.printed("switch")
    if where == "path":
        assert line.startswith("mountd ")
    switched = demo.type(line)
    assert switched.returncode == 0, switched.stderr
    assert json.loads(demo.page("/config"))["version"] == "v22"
    assert demo.interrupt() == 0
    if where == "spaces":  # a directory that somebody named is not ours to remove
        assert (room.path / "tmp" / "my demo" / "mountd.yaml").exists()
        shutil.rmtree(room.path / "tmp" / "my demo")
    room.assert_empty()


@pytest.mark.thorough
def test_status_finds_the_only_demo_and_asks_which_of_two(make_demo: Callable[..., Demo], room: Room) -> None:
    if os.path.exists(SYSTEM_SOCKET):
        pytest.skip("a mountd of this machine would be found first")
    first = make_demo()
    first.until_ready()
    found = first.mountd("status", "-o", "json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["mounts"]["storage"]["path"].startswith(f"{room.path}/")
    examined = first.mountd("doctor", "-o", "json")
    assert examined.returncode == 0, examined.stdout
    checks = {check["name"]: check for check in json.loads(examined.stdout)["checks"]}
    assert str(room.path) in checks["config"]["text"]
    assert {checks[name]["result"] for name in ("daemon", "bucket of storage", "mount point of storage")} == {"ok"}

    second = make_demo()
    second.until_ready()
    pages = [json.loads(demo.page("/config")) for demo in (first, second)]
    assert [page["version"] for page in pages] == ["v23", "v23"]
    assert pages[0]["app_id"] != pages[1]["app_id"]
    asked = second.mountd("status")
    assert asked.returncode == 2
    sockets = re.findall(r"--socket (\S+)", asked.stderr)
    assert len(sockets) == 2
    assert second.mountd("doctor").returncode == 2
    for path in sockets:
        assert first.mountd("status", "--socket", path).returncode == 0
        assert str(Path(path).parent.parent) in first.mountd("--socket", path, "config", "check").stdout

    second.process.send_signal(signal.SIGHUP)  # its terminal was closed
    assert second.process.wait(STOP_S) == 0
    assert first.mountd("status").returncode == 0
    assert first.interrupt() == 0
    room.assert_empty()
    assert first.mountd("status").returncode == 8


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["preparing", "s3.log", "mountd.log", "  mount ", "webui starting"])
def test_ctrl_c_during_the_start_leaves_nothing(make_demo: Callable[..., Demo], room: Room, moment: str) -> None:
    demo = make_demo()
    if moment.endswith(".log"):
        until(lambda: list((room.path / "tmp").glob(f"*/{moment}")), READY_S, moment, every_s=0.001)
    elif moment == "webui starting":  # on a busy machine nobody may have looked while it did
        until(lambda: moment in demo.said or "Ctrl-C stops it" in demo.said, READY_S, moment)
    else:
        demo.until_said(moment)
    assert demo.interrupt() == 0, demo.said
    assert "Traceback" not in demo.said
    room.assert_empty()


def test_what_it_started_ends_when_it_is_killed(make_demo: Callable[..., Demo], room: Room) -> None:
    demo = make_demo()
    demo.until_ready()
    demo.process.kill()
    demo.process.wait()
    until(lambda: not room.mounts() and not room.processes(), STOP_S, "everything to end by itself", every_s=0.1)
    assert demo.mountd("status").returncode == (0 if os.path.exists(SYSTEM_SOCKET) else 8)


@pytest.mark.thorough
def test_a_mountd_that_is_killed_under_it_leaves_no_dead_mount(make_demo: Callable[..., Demo], room: Room) -> None:
    demo = make_demo()
    demo.until_ready()
    daemon = json.loads(demo.mountd("status", "-o", "json").stdout)["pid"]
    os.kill(daemon, signal.SIGKILL)
    assert demo.process.wait(STOP_S) == 1
    until(lambda: not room.mounts() and not room.processes(), STOP_S, "everything to end by itself", every_s=0.1)


def test_a_taken_port_is_said_at_once(make_demo: Callable[..., Demo], room: Room) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = make_demo("--port", str(port))
        assert demo.process.wait(20) == 2
    assert f"port {port}" in demo.said
    assert "hint:" in demo.said
    room.assert_empty()


def test_a_directory_with_other_things_is_left_alone(make_demo: Callable[..., Demo], room: Room) -> None:
    mine = room.path / "mine"
    mine.mkdir()
    (mine / "letter").touch()
    demo = make_demo("--directory", str(mine))
    assert demo.process.wait(20) == 2
    assert str(mine) in demo.said
    assert [path.name for path in mine.iterdir()] == ["letter"]
