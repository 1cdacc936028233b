"""Limits of an app, on the files of a cgroup: which are written, and what is said where there are no controllers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mountd.app.belonging import Belonging
from mountd.process import cgroup, cgroup_limits
from mountd.process.instance import Instance
from mountd.settings.limits import AppLimitSettings


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Of a parent that has all controllers, and that this process is in."""
    parent = tmp_path / "unit"
    made = parent / "mountd-inst-webui"
    made.mkdir(parents=True)
    (parent / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (parent / "cgroup.subtree_control").write_text("")
    (parent / "cgroup.procs").write_text(f"{os.getpid()}\n")
    for name in ("memory.max", "cpu.max", "memory.oom.group"):
        (made / name).write_text("")
    return made


def files(app: Path) -> tuple[str, str, str]:
    memory, cpu, group = ((app / name).read_text() for name in ("memory.max", "cpu.max", "memory.oom.group"))
    return memory, cpu, group


def test_both_are_written_and_mountd_makes_way_for_them(app: Path) -> None:
    assert cgroup_limits.apply(app, memory_bytes=8 << 30, cpus=2.5) == ""
    assert files(app) == ("8589934592", "250000 100000", "1")
    assert (app.parent / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (app.parent / cgroup.SELF / "cgroup.procs").read_text() == str(os.getpid())


def test_one_alone_and_none(app: Path) -> None:
    assert cgroup_limits.apply(app, memory_bytes=None, cpus=0.5) == ""
    assert files(app) == ("max", "50000 100000", "0")
    (app.parent / "cgroup.subtree_control").write_text("cpu memory\n")
    assert cgroup_limits.apply(app, memory_bytes=None, cpus=None) == ""
    assert files(app) == ("max", "max 100000", "0")
    assert (app.parent / "cgroup.subtree_control").read_text() == "cpu memory\n"


def test_a_controller_that_is_not_passed_is_named(app: Path) -> None:
    (app.parent / "cgroup.controllers").write_text("cpu pids\n")
    assert "no memory controller" in cgroup_limits.apply(app, memory_bytes=1 << 30, cpus=1)
    assert cgroup_limits.apply(app, memory_bytes=None, cpus=1) == ""


def test_a_process_that_is_not_ours_is_not_moved(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell's session: the kernel says no while it is there."""
    (app.parent / "cgroup.procs").write_text("1\n")
    (app.parent / "cgroup.subtree_control").unlink()
    (app.parent / "cgroup.subtree_control").symlink_to("/proc/version")  # can be read, not written
    assert "[1]" in cgroup_limits.apply(app, memory_bytes=1 << 30, cpus=None)
    assert not (app.parent / cgroup.SELF / "cgroup.procs").exists()


def test_where_the_kernel_refuses_that_is_said(app: Path) -> None:
    (app / "memory.max").unlink()
    (app / "memory.max").symlink_to("/dev/full")
    assert "no space left" in cgroup_limits.apply(app, memory_bytes=1 << 30, cpus=None)


@pytest.mark.parametrize(("events", "found"), [("low 0\noom_kill 2\n", True), ("oom_kill 0\n", False), ("", False)])
def test_who_ran_out_of_memory(app: Path, events: str, found: bool) -> None:
    assert not cgroup_limits.ran_out_of_memory(app)
    (app / "memory.events").write_text(events)
    assert cgroup_limits.ran_out_of_memory(app) is found


def test_mountds_own_cgroup_beside_its_apps_is_not_the_one_they_are_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "find", lambda *_: Path("/sys/fs/cgroup/system.slice/mountd.service") / cgroup.SELF)
    assert cgroup.own() == Path("/sys/fs/cgroup/system.slice/mountd.service")


def test_an_app_has_its_limits_from_its_start_and_others_at_once(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "make", lambda *_: app)
    belonging = Belonging(Instance.of(app.parent, app.parent), "webui")
    limits = AppLimitSettings.model_validate({"memory": "1G", "cpu": "1"})
    belonging.limit(limits)
    assert files(app) == ("", "", ""), "it is not started yet"
    assert belonging.begin(limits) == app
    assert files(app) == ("1073741824", "100000 100000", "1")
    belonging.limit(AppLimitSettings.model_validate({"cpu": "2"}))
    assert files(app) == ("max", "200000 100000", "0")
    for name in ("memory.max", "cpu.max"):
        (app / name).write_text("as it is")
    belonging.limit(AppLimitSettings.model_validate({"cpu": "2"}))
    assert files(app)[:2] == ("as it is", "as it is"), "nothing has changed"


@pytest.mark.parametrize(("written", "warned"), [({}, False), ({"cpu": "1"}, True)])
def test_where_there_is_no_cgroup_a_limit_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: dict[str, str], warned: bool
) -> None:
    monkeypatch.setattr(cgroup, "make", lambda *_: None)
    with capture_logs() as logs:
        Belonging(Instance.of(tmp_path, tmp_path), "webui").begin(AppLimitSettings.model_validate(written))
    assert [each["app"] for each in logs] == (["webui"] if warned else [])
