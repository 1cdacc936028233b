"""`mountd demo` as a newcomer uses it: it works, what it prints works as printed, and afterwards nothing is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mountd.client.find import SYSTEM_SOCKET
from tests.support.demos import PROGRAM, READY_S, STOP_S, Demo, Room
from tests.support.status_keys import STATUS, keys
from tests.support.wait import until

pytestmark = pytest.mark.fuse

PROJECT = Path(__file__).parents[2]


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
    urllib.request.urlopen(f"http://127.0.0.1:{demo.port}/tts", b'{"text": "hello"}', timeout=30).close()
    told = demo.printed("status").replace(" status", " events -o json")
    until(lambda: "result-uploaded" in demo.type(told).stdout, 60.0, "the result in its bucket", every_s=0.5)
    check_login(demo)

    assert demo.interrupt() == 0
    room.assert_empty()


def check_login(demo: Demo) -> None:
    """With the token of the file that it names, at the address of the dashboard that it prints."""
    address, file = re.findall(r"the dashboard +(http://\S+/) +\(its token: the last word of (\S+)\)", demo.said)[0]
    token = Path(file).read_text().split()[-1]
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert token not in demo.said
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert b"/dashboard/app.js" in answer.read()
    body, headers = json.dumps({"token": token}).encode(), {"Origin": address.rstrip("/")}
    request = urllib.request.Request(f"{address}api/v1/login", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
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
        assert demo.process.wait(60) == 2
    assert f"port {port}" in demo.said
    assert "hint:" in demo.said
    room.assert_empty()


def test_a_directory_with_other_things_is_left_alone(make_demo: Callable[..., Demo], room: Room) -> None:
    mine = room.path / "mine"
    mine.mkdir()
    (mine / "letter").touch()
    demo = make_demo("--directory", str(mine))
    assert demo.process.wait(60) == 2
    assert str(mine) in demo.said
    assert [path.name for path in mine.iterdir()] == ["letter"]
