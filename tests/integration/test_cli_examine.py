"""What `config` and `doctor` ask the daemon, a stand-in: which file it uses, whether it answers, and how it is."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from pathlib import Path

import pytest

from mountd.cli import examine
from mountd.cli.examine import Check
from mountd.cli.examine_config import source_of
from mountd.cli.main import main
from mountd.client import find
from mountd.demo import run as demo_run
from mountd.errors import UsageError
from mountd.mount.preflight import NOT_VISIBLE
from mountd.settings.load import Places, parse
from tests.support.standin import STATUS, StandIn, error

PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
USED = Path("/srv/used.yaml")


@pytest.fixture
def standin(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Not named by the environment."""
    monkeypatch.delenv("MOUNTD_SOCKET")
    standin.status = {**STATUS, "config": {"source": str(USED)}}
    return standin


@pytest.fixture
def default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the system's file would be; no daemon is at a usual place."""
    for name in ("MOUNTD_SOCKET", "MOUNTD_CONFIG", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(find, "SYSTEM_SOCKET", str(tmp_path / "system.sock"))
    for module in (find, demo_run):
        monkeypatch.setattr(module, "demo_directories", lambda: [str(tmp_path / "demos")])
    path = tmp_path / "default.yaml"
    monkeypatch.setattr("mountd.settings.load.DEFAULT_CONFIG", path)
    return path


# -- which file -------------------------------------------------------------------------------------------------------


def test_a_file_that_is_named_is_meant(standin: StandIn, default: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_of("a.yaml", standin.path) == Path("a.yaml")
    monkeypatch.setenv("MOUNTD_CONFIG", "/b.yaml")
    assert source_of(None, standin.path) == Path("/b.yaml")
    assert standin.asked == []


def test_else_that_of_the_daemon_where_one_is_named_or_there_is_no_other(
    standin: StandIn, default: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source_of(None, standin.path) == USED
    assert source_of(None, None) == default, "no daemon is found"
    monkeypatch.setenv("MOUNTD_SOCKET", standin.path)
    assert source_of(None, None) == USED
    default.touch()
    assert source_of(None, None) == USED
    monkeypatch.delenv("MOUNTD_SOCKET")
    assert source_of(None, None) == default


def test_a_daemon_that_is_not_named_is_asked_only_without_a_file(standin: StandIn, default: Path) -> None:
    Path(find.SYSTEM_SOCKET).symlink_to(standin.path)
    assert source_of(None, None) == USED
    default.symlink_to("nothing")
    assert source_of(None, None) == default, "what is wrong there is to be seen"


def test_a_daemon_that_does_not_say_leaves_the_usual_file(standin: StandIn, default: Path) -> None:
    for status in (STATUS, {**STATUS, "config": {}}, {**STATUS, "config": {"source": "relative.yaml"}}):
        standin.status = status
        assert source_of(None, standin.path) == default
    standin.answers["GET /api/v1/status"] = error(500, 20, "a bug")
    assert source_of(None, standin.path) == default


def test_of_two_demos_neither_is_taken(default: Path) -> None:
    for pid in (os.getpid(), os.getppid()):
        demo_run.register(f"/tmp/{pid}", f"/nonexistent/{pid}.sock", pid)
    with pytest.raises(UsageError):
        source_of(None, None)


# -- whether it answers -----------------------------------------------------------------------------------------------


def control(path: str | Path) -> tuple[list[Check], bool]:
    text = f"""
remotes: {{s: {{type: s3, endpoint: "http://x"}}}}
mounts: {{m: {{remote: "s:b", path: /mnt/m}}}}
control: {{socket: {path}}}
"""
    return asyncio.run(examine.control(parse(text, "x.yaml", PLACES).settings, how_to_start="start it so"))


def test_how_the_daemon_is(standin: StandIn) -> None:
    ([check], running) = control(standin.path)
    assert (check.name, check.result, check.hint, running) == ("daemon", "ok", "", True)
    standin.status = {**STATUS, "ready": False}
    ([check], running) = control(standin.path)
    assert (check.result, "mountd status" in check.hint, running) == ("warn", True, True)
    standin.answers["GET /api/v1/status"] = error(503, 1, "cannot read the journal", "look at the disk")
    ([check], running) = control(standin.path)
    assert (check, running) == (Check("daemon", "fail", "cannot read the journal", "look at the disk"), True)


def test_a_mount_that_the_machine_does_not_see_is_reported(standin: StandIn) -> None:
    reason = {"code": NOT_VISIBLE, "text": "is not visible", "layer": "mount", "object": "storage", "hint": "unshare"}
    standin.status = {**STATUS, "reasons": [*STATUS["reasons"], reason]}
    checks, _ = control(standin.path)
    assert checks[1:] == [Check("namespace", "fail", "is not visible", "unshare")]


def test_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stopped = ([Check("daemon", "warn", "not running", "start it so")], False)
    assert control(path) == stopped
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert control(path) == stopped, "nobody listens any more"
    path.unlink()
    path.write_text("somebody's")
    ([check], running) = control(path)
    assert (check.result, bool(check.hint), running) == ("fail", True, False)


def test_beside_a_daemon_its_ports_are_its_own(
    standin: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.yaml"
    short = tempfile.TemporaryDirectory(prefix="mountd-t-")  # tmp_path may not fit into a Unix socket's address
    with short as runtime, socket.create_server(("127.0.0.1", 0)) as taken:
        file.write_text(f"""
remotes: {{r: {{type: local}}}}
mounts: {{m: {{remote: "r:/", path: {tmp_path}/m, cache: {{dir: {tmp_path}/c, min_free: 1M}}}}}}
rclone: {{binary: /nonexistent/rclone}}
state: {tmp_path}/state
runtime: {runtime}
control: {{socket: {standin.path}}}
http: {{listen: "127.0.0.1:{taken.getsockname()[1]}"}}
""")
        for running in (True, False):
            main(["doctor", "-c", str(file), "-o", "json"])
            checks = {each["name"]: each["result"] for each in json.loads(capsys.readouterr().out)["checks"]}
            assert (checks["daemon"], checks.get("http")) == (("ok", None) if running else ("warn", "fail"))
            standin.stop()
