"""Which daemon a command means."""

import json
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mountd.client import api, find
from mountd.demo import run as demo_run
from mountd.errors import CannotStart, ConfigError, Unreachable, UsageError

DEMO_DIRECTORIES = find.demo_directories


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MOUNTD_SOCKET", raising=False)
    monkeypatch.delenv("MOUNTD_CONFIG", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(find, "SYSTEM_SOCKET", str(tmp_path / "system.sock"))
    monkeypatch.setattr(find, "PROBE_TIMEOUT_S", 60.0)
    monkeypatch.setattr(find, "demo_directories", lambda: [str(tmp_path / "demos")])
    monkeypatch.setattr(demo_run, "demo_directories", lambda: [str(tmp_path / "demos")])
    return tmp_path


@pytest.fixture
def listen() -> Iterator[Callable[[Path], str]]:
    with ExitStack() as stack:

        def start(path: Path) -> str:
            path.parent.mkdir(exist_ok=True)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            return str(path)

        yield start


def test_the_socket_that_was_named_wins(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOUNTD_SOCKET", "/env.sock")
    assert find.find("/named.sock", "/missing.yaml") == "/named.sock"
    assert find.find(None, "/missing.yaml") == "/env.sock"


def test_the_socket_of_a_broken_file_is_asked_all_the_same(
    place: Path, listen: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is when `status` is needed. Where the file does not say, the usual places are tried."""
    system = listen(place / "system.sock")
    file = place / "mountd.yaml"
    file.write_text("control: {socket: /named.sock}\nmounts: [\n")
    assert find.find(None, str(file)) == "/named.sock"
    monkeypatch.setenv("MOUNTD_CONFIG", str(file))
    assert find.find(None, None) == "/named.sock"
    file.write_text("mounts: [\n")
    assert find.find(None, None) == system
    with pytest.raises(ConfigError, match="no such file"):
        find.find(None, str(place / "none.yaml"))


def test_the_file_of_an_instance_leads_to_its_own_daemon_and_to_no_other(
    place: Path, listen: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """mountd@gpu1 has /etc/mountd/gpu1.yaml and /run/mountd-gpu1: to ask mountd instead would switch the wrong one."""
    monkeypatch.setattr(find, "SYSTEM_SOCKET", str(place / "mountd" / "mountd.sock"))
    monkeypatch.setattr(find, "CONFIG_DIRECTORY", str(place))
    system = listen(place / "mountd" / "mountd.sock")
    for name in ("mountd", "gpu1"):
        (place / f"{name}.yaml").write_text("mounts: {}\n")
    assert find.find(None, str(place / "mountd.yaml")) == system
    assert find.find(None, str(place / "gpu1.yaml")) == system, "no such unit has been started"
    (place / "mountd-gpu1").mkdir()
    assert find.find(None, str(place / "gpu1.yaml")) == str(place / "mountd-gpu1" / "mountd.sock")
    (place / "gpu1.yaml").write_text("control: {socket: /named.sock}\n")
    assert find.find(None, str(place / "gpu1.yaml")) == "/named.sock"


def test_where_demos_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"mountd-demos-{os.getuid()}"
    for runtime, temporary, bases in [
        ("/run/user/7", "/room", ["/run/user/7", "/room"]),
        ("", "/room", ["/room"]),
        ("/run/user/7", "", ["/run/user/7", "/tmp"]),
        ("", "relative", ["/tmp"]),
    ]:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("TMPDIR", temporary)
        assert DEMO_DIRECTORIES() == [f"{base}/{name}" for base in bases]


def test_a_command_in_a_unit_means_the_daemon_of_that_unit(
    place: Path, listen: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    system = listen(place / "system.sock")
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{place / 'a'}:{place / 'b'}")
    assert find.find(None, None) == system
    own = listen(place / "a" / "mountd.sock")
    assert find.find(None, None) == own


def test_system_then_user_then_demo(place: Path, listen: Callable[[Path], str]) -> None:
    demo = listen(place / "demo.sock")
    demo_run.register(place, demo, os.getpid())
    assert find.find(None, None) == demo
    user = listen(place / "mountd" / "mountd.sock")
    assert find.find(None, None) == user
    system = listen(place / "system.sock")
    assert find.find(None, None) == system


def test_socket_file_without_a_listener_is_passed_over(place: Path, listen: Callable[[Path], str]) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place / "system.sock"))
    user = listen(place / "mountd" / "mountd.sock")
    assert find.find(None, None) == user


def test_a_daemon_that_does_not_let_us_in_is_the_one_that_is_meant(
    place: Path, listen: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command then says so, instead of asking another daemon."""
    listen(place / "mountd" / "mountd.sock")
    connect = api.connect

    def refuse(path: str, deadline: float | None) -> socket.socket:
        if path == find.SYSTEM_SOCKET:
            raise PermissionError(13, "Permission denied")
        return connect(path, deadline)

    monkeypatch.setattr(find, "connect", refuse)  # as root nothing is ever denied
    assert find.find(None, None) == find.SYSTEM_SOCKET


def test_a_daemon_that_accepts_nothing_is_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "PROBE_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(find.SYSTEM_SOCKET)
        listener.listen(0)
        first.connect(find.SYSTEM_SOCKET)  # its queue is full now
        assert find.find(None, None) == find.SYSTEM_SOCKET


@pytest.mark.root
@pytest.mark.parametrize(("mode", "believed"), [(0o700, True), (0o755, True), (0o775, False), (0o702, False)])
def test_a_socket_in_tmp_is_believed_where_nobody_else_could_put_one(
    place: Path, listen: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch, mode: int, believed: bool
) -> None:
    uid = random.randrange(10**8, 10**9)
    directory = Path(f"/tmp/mountd-{uid}")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(os, "getuid", lambda: uid)
    try:
        answering = listen(directory / "mountd.sock")
        directory.chmod(mode)
        assert find._user_socket() == "", "it is another user's"
        os.chown(directory, uid, -1)
        assert find._user_socket() == (answering if believed else "")
    finally:
        shutil.rmtree(directory)


def test_nobody_answers(place: Path) -> None:
    with pytest.raises(Unreachable) as raised:
        find.find(None, None)
    assert str(place / "system.sock") in raised.value.text
    assert "mountd demo" in raised.value.hint


def test_two_demos_are_both_named(place: Path, listen: Callable[[Path], str]) -> None:
    first, second = listen(place / "a.sock"), listen(place / "b.sock")
    demo_run.register("/tmp/a", first, os.getpid())
    with subprocess.Popen(["sleep", "600"]) as other:
        demo_run.register("/tmp/b", second, other.pid)
        with pytest.raises(UsageError) as raised:
            find.find(None, None)
        other.kill()
    assert f"--socket {first}" in raised.value.text
    assert f"--socket {second}" in raised.value.text
    assert raised.value.exit_code == 2


def test_of_two_demos_the_one_that_answers(place: Path, listen: Callable[[Path], str]) -> None:
    demo_run.register("/tmp/a", place / "silent.sock", os.getpid())
    with subprocess.Popen(["sleep", "600"]) as other:
        answering = listen(place / "b.sock")
        demo_run.register("/tmp/b", answering, other.pid)
        assert find.find(None, None) == answering
        other.kill()


def test_demo_of_a_dead_process_is_passed_over(place: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    demo_run.register("/tmp/a", place / "a.sock", gone.pid)
    assert find.running_demos() == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "1", "socket": "x"}', '{"pid": -1, "socket": "x"}', "\0"])
def test_broken_entries_are_passed_over(place: Path, content: str) -> None:
    entry = demo_run.register("/tmp/a", "/tmp/a.sock", os.getpid())
    entry.write_text(content)
    assert find.running_demos() == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_registry_that_others_may_touch_is_not_believed(place: Path, mode: int) -> None:
    entry = demo_run.register("/tmp/a", "/tmp/a.sock", os.getpid())
    assert len(find.running_demos()) == 1
    entry.parent.chmod(mode)
    assert find.running_demos() == []


def test_registry_that_is_a_link_is_not_believed(place: Path) -> None:
    (place / "real").mkdir(mode=0o700)
    (place / "demos").symlink_to("real")
    with pytest.raises(CannotStart):
        demo_run.register("/tmp/a", "/tmp/a.sock", os.getpid())
    assert find.running_demos() == []


def test_the_oldest_demo_comes_first(place: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        for pid, started in ((os.getpid(), "2026-01-02T00:00:00Z"), (other.pid, "2026-01-01T00:00:00Z")):
            entry = demo_run.register("/tmp/a", f"/tmp/{pid}.sock", pid)
            entry.write_text(json.dumps({**json.loads(entry.read_text()), "started": started}))
        (entry.parent / "notes.txt").write_text(entry.read_text())
        assert [demo["pid"] for demo in find.running_demos()] == [other.pid, os.getpid()]
        other.kill()


def test_what_is_registered(place: Path) -> None:
    entry = demo_run.register("/tmp/a", "/tmp/a.sock", os.getpid())
    assert entry.parent.stat().st_mode & 0o777 == 0o700
    document = json.loads(entry.read_text())
    assert (document["pid"], document["socket"], document["directory"]) == (os.getpid(), "/tmp/a.sock", "/tmp/a")
    entry.unlink()
    assert find.running_demos() == []
