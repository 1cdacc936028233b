"""Where the cgroup of this process is, by what the kernel writes of it; one for each app, made, looked at and ended."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

import pytest

from mountd.process import cgroup
from mountd.process.cgroup import find
from tests.support.wait import until

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = "42 32 0:39 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
VERSION_1 = "33 32 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"
OF_A_CONTAINER = "500 490 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw"
WITHOUT_OPTIONS = "31 23 0:27 / /cgroup2 rw - cgroup2 none rw"


@pytest.mark.parametrize(
    ("place", "mounts", "found"),
    [
        ("0::/system.slice/mountd.service", [UNIFIED], "/sys/fs/cgroup/system.slice/mountd.service"),
        ("0::/", [VERSION_1, HYBRID], "/sys/fs/cgroup/unified"),
        ("0::/", [WITHOUT_OPTIONS], "/cgroup2"),
        ("0::/docker/abc", [OF_A_CONTAINER], "/sys/fs/cgroup"),
        ("0::/docker/abc/x", [OF_A_CONTAINER], "/sys/fs/cgroup/x"),
        ("0::/docker/abcd", [OF_A_CONTAINER], None),
        ("0::/../other", [UNIFIED], None),
        ("9:cpu:/a", [VERSION_1, UNIFIED], None),
        ("0::/a", [VERSION_1], None),
    ],
)
def test_where_it_is(place: str, mounts: list[str], found: str | None) -> None:
    assert find(["4:memory:/m", place], mounts) == (None if found is None else Path(found))


# -- its files, as plain ones -----------------------------------------------------------------------------------------


def test_it_is_made_only_where_processes_may_be_moved_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "mountd-inst-webui"
    monkeypatch.setattr(cgroup, "own", lambda: None)
    assert cgroup.make("inst", "webui") is None
    monkeypatch.setattr(cgroup, "own", lambda: tmp_path)
    assert cgroup.make("inst", "webui") is None
    assert not made.exists(), "one that is of no use does not stay"
    made.mkdir()
    (made / "cgroup.procs").touch()
    assert cgroup.make("inst", "webui") is None, "nor may they be moved out of the daemon's"
    (tmp_path / "cgroup.procs").touch()
    assert cgroup.make("inst", "webui") == made
    (tmp_path / "file").touch()
    monkeypatch.setattr(cgroup, "own", lambda: tmp_path / "file")
    assert cgroup.make("inst", "webui") is None


def test_who_is_in_it_and_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for directory, pids in ((tmp_path, "1\n2\n"), (tmp_path / "a", ""), (tmp_path / "a" / "b", "3\n")):
        (directory / "cgroup.procs").write_text(pids)
    assert sorted(cgroup.members(tmp_path)) == [1, 2, 3]
    assert cgroup.members(tmp_path / "none") == []


@pytest.mark.parametrize("has_kill", [True, False])
def test_an_older_kernel_gets_a_signal_for_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_kill: bool
) -> None:
    monkeypatch.setattr(cgroup, "PATIENCE_S", 0.0)
    if not has_kill:
        (tmp_path / "cgroup.kill").mkdir()  # so that nothing can be written there
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            (tmp_path / "cgroup.procs").write_text(f"{child.pid}\n")
            until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n", 60, "its program", every_s=0.001)
            assert asyncio.run(cgroup.end(tmp_path)) == [f"{child.pid} sleep"]
            if has_kill:
                assert (tmp_path / "cgroup.kill").read_text() == "1"
                assert child.poll() is None, "that is the kernel's work"
            else:
                assert child.wait(60) == -signal.SIGKILL
        finally:
            child.kill()


def test_those_of_a_previous_run_are_removed_and_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mountd-inst-a", "mountd-inst-b/below", "mountd-instance-a", "other"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(cgroup, "own", lambda: tmp_path)
    assert asyncio.run(cgroup.end_all("inst")) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mountd-instance-a", "other"]
    monkeypatch.setattr(cgroup, "own", lambda: None)
    assert asyncio.run(cgroup.end_all("instance")) == []
    assert (tmp_path / "mountd-instance-a").exists()
