"""A machine, or a place on it, that cannot serve a mount: said in plain words, nothing hidden or lost, tried again."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.not_ready import assert_app_never_started, assert_silent, until_not_ready
from tests.support.wait import until

pytestmark = pytest.mark.fuse

REPAIRED_S = 60.0
"""Preflight is tried again every 10 s."""

# A mount namespace of its own whose /dev holds what programs need and no fuse. $1: a directory, then the command.
WITHOUT_FUSE = """
set -eu
dev=$1; shift
mkdir "$dev"
mount -t tmpfs dev "$dev"
for node in null zero full random urandom; do : >"$dev/$node"; mount --bind "/dev/$node" "$dev/$node"; done
mount --rbind "$dev" /dev
exec "$@"
"""


@contextlib.contextmanager
def tmpfs(path: Path, options: str = "size=1m") -> Iterator[None]:
    """Somebody else's mount, gone again at the end of the test."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "somebody", str(path)], check=True, timeout=60)
    try:
        yield
    finally:
        if os.path.ismount(path):
            subprocess.run(["umount", "-l", str(path)], check=True, timeout=60)


@dataclass
class Fault:
    """What is wrong with a mount at `point` with its cache at `cache`, mountd's report, and the repair.

    `names`: in the text of the report.
    """

    code: str
    names: str
    spoil: Callable[[Path, Path], contextlib.AbstractContextManager[None]]
    repair: Callable[[Path, Path], object]
    untouched: Callable[[Path, Path], object] = lambda point, cache: None


@contextlib.contextmanager
def _not_empty(point: Path, _: Path) -> Iterator[None]:
    point.mkdir()
    (point / "precious.txt").write_text("precious")
    yield


@contextlib.contextmanager
def _a_file(point: Path, _: Path) -> Iterator[None]:
    point.write_text("precious")
    yield


@contextlib.contextmanager
def _somebodys(point: Path, _: Path) -> Iterator[None]:
    with tmpfs(point):
        (point / "precious.txt").write_text("precious")
        yield


@contextlib.contextmanager
def _cache_below_a_file(_: Path, cache: Path) -> Iterator[None]:
    cache.parent.write_text("precious")
    yield


@contextlib.contextmanager
def _cache_read_only(_: Path, cache: Path) -> Iterator[None]:
    with tmpfs(cache.parent, "ro"):
        yield


FAULTS = {
    "not-empty": Fault(
        "mount-point-not-empty",
        "precious.txt",
        _not_empty,
        lambda point, _: (point / "precious.txt").rename(point.parent / "precious.txt"),
        lambda point, _: (point / "precious.txt").read_text() == "precious",
    ),
    "a-file": Fault(
        "mount-point",
        "{point}",
        _a_file,
        lambda point, _: point.rename(point.parent / "aside"),
        lambda point, _: point.read_text() == "precious",
    ),
    "somebodys-mount": Fault(
        "mount-point-taken",
        "somebody (tmpfs)",
        _somebodys,
        lambda point, _: subprocess.run(["umount", "-l", str(point)], check=True, timeout=60),
        lambda point, _: (point / "precious.txt").read_text() == "precious",
    ),
    "cache-below-a-file": Fault(
        "cache-not-writable",
        f"{{cache}}: {os.strerror(errno.ENOTDIR).lower()}",
        _cache_below_a_file,
        lambda _, cache: cache.parent.unlink(),
        lambda _, cache: cache.parent.read_text() == "precious",
    ),
    "cache-read-only": Fault(
        "cache-not-writable",
        f"{{cache}}: {os.strerror(errno.EROFS).lower()}",
        _cache_read_only,
        lambda _, cache: subprocess.run(["umount", "-l", str(cache.parent)], check=True, timeout=60),
    ),
}


def spoiled(daemon: Daemon, name: str) -> tuple[Path, Path]:
    """The places of the mount `name`, which is made when the daemon has none of this name."""
    point, cache = daemon.root / f"mnt-{name}", daemon.root / f"cache-{name}" / "rclone"
    daemon.config["mounts"][name] = {
        **daemon.config["mounts"]["storage"],
        "path": str(point),
        "cache": {"dir": str(cache), "min_free": "1%"},
    }
    return point, cache


@pytest.mark.root
@pytest.mark.shown_by("not-empty")
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.thorough
def test_a_place_that_cannot_be_used(daemon: Daemon, name: str) -> None:
    fault = FAULTS[name]
    point, cache = spoiled(daemon, "storage")
    with fault.spoil(point, cache):
        before = daemon.mounts()
        daemon.start()
        reason = until_not_ready(daemon, fault.code, fault.names.format(point=point, cache=cache))
        assert (reason["layer"], reason["object"]) == ("mount", "storage")
        assert_app_never_started(daemon)
        assert fault.untouched(point, cache) in (True, None)
        assert daemon.mounts() == before
        until(lambda: daemon.status()["mounts"]["storage"]["state"] == "backoff", 60, "the next try to be waited for")

        fault.repair(point, cache)
        assert daemon.cli("restart", "storage").code == 0  # no wait after a repair
        daemon.until_ready()
        assert_silent(daemon)
        assert daemon.stop() == 0


@pytest.mark.thorough
@pytest.mark.root
@pytest.mark.slow
def test_repairs_of_all_of_them_are_found_by_mountd_itself(daemon: Daemon) -> None:
    names = [*FAULTS]
    places = {name: spoiled(daemon, name) for name in names}
    del daemon.config["mounts"]["storage"]
    daemon.config["models"]["cache_hub"]["mount"] = names[0]
    daemon.config["apps"]["webui"]["needs"] = ["cache_hub", *names]
    with contextlib.ExitStack() as stack:
        for name, fault in FAULTS.items():
            stack.enter_context(fault.spoil(*places[name]))
        daemon.start()
        faults = {name: fault.code for name, fault in FAULTS.items()}

        def reported() -> dict[str, str]:
            return {each["object"]: each["code"] for each in daemon.status()["reasons"] if each["layer"] == "mount"}

        until(lambda: reported() == faults, 60, "all faults")
        assert_app_never_started(daemon)
        for name, fault in FAULTS.items():
            fault.repair(*places[name])
        daemon.until_ready(REPAIRED_S)
        assert daemon.page()["version"] == "v23"
        assert daemon.stop() == 0


@pytest.mark.thorough
@pytest.mark.parametrize("where", ["itself", "above"])
def test_a_mount_point_through_a_symbolic_link(daemon: Daemon, where: str) -> None:
    """The kernel's table names the real path: mountd would never see its own mount, nor clear it."""
    real, link = daemon.root / "real", daemon.root / "link"
    real.mkdir()
    link.symlink_to(real)
    point, target = (link, real) if where == "itself" else (link / "mnt", real / "mnt")
    daemon.config["mounts"]["storage"]["path"] = str(point)
    daemon.start()
    reason = until_not_ready(daemon, "mount-point", str(point), str(target))
    assert f"path: {target}" in reason["hint"]
    assert_app_never_started(daemon)
    assert daemon.mounts() == []
    assert list(real.iterdir()) == []
    assert daemon.stop() == 0
    daemon.config["mounts"]["storage"]["path"] = str(target)
    daemon.start_ready()


@pytest.mark.thorough
def test_a_mount_point_and_a_cache_of_another_mountd(make_daemon: Callable[..., Daemon]) -> None:
    first, second = make_daemon(), make_daemon()
    before = first.start_ready()
    second.config["mounts"]["storage"]["path"] = str(first.mount)
    second.start()
    until_not_ready(second, "mount-point-taken", f"{first.mount}: mountd:{first.instance.id}:storage")
    assert_app_never_started(second)
    assert second.stop() == 0

    second.config["mounts"]["storage"]["path"] = str(second.mount)
    second.config["mounts"]["storage"]["cache"]["dir"] = str(first.root / "cache")
    second.start()
    until_not_ready(second, "cache-taken", str(first.root / "cache"))
    assert second.stop() == 0

    after = first.status()
    assert after["ready"]
    assert after["mounts"]["storage"]["pid"] == before["mounts"]["storage"]["pid"]
    assert first.page()["version"] == "v23"


@pytest.mark.root
@pytest.mark.slow
def test_no_dev_fuse(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.wrap = ("unshare", "-m", "sh", "-c", WITHOUT_FUSE, "sh", str(daemon.root / "dev"))
    daemon.start()
    reason = until_not_ready(daemon, "no-fuse", "/dev/fuse")
    assert "--device /dev/fuse" in reason["hint"]
    assert_app_never_started(daemon)
    assert daemon.process is not None
    subprocess.run(
        ["nsenter", "-t", str(daemon.process.pid), "-m", "umount", "-l", "/dev"], check=True, timeout=60
    )  # as if it had been loaded
    daemon.until_ready(REPAIRED_S)
    assert_silent(daemon)
    assert stat.S_ISCHR(os.stat("/dev/fuse").st_mode)


@pytest.mark.thorough
@pytest.mark.slow
def test_no_fusermount3(daemon: Daemon) -> None:
    programs = daemon.root / "bin"
    programs.mkdir()
    fusermount = None
    for directory in reversed(os.environ["PATH"].split(":")):
        with contextlib.suppress(OSError):
            for program in os.scandir(directory):
                if program.name in ("fusermount", "fusermount3"):
                    fusermount = program.path
                else:
                    (programs / program.name).unlink(missing_ok=True)
                    (programs / program.name).symlink_to(program.path)
    assert fusermount is not None
    daemon.environment["PATH"] = str(programs)
    daemon.start()
    reason = until_not_ready(daemon, "no-fusermount", "fusermount3")
    assert "fuse3" in reason["hint"]
    assert_app_never_started(daemon)
    for name in ("fusermount3", "fusermount"):
        (programs / name).symlink_to(fusermount)
    daemon.until_ready(REPAIRED_S)
    assert_silent(daemon)
