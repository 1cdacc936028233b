"""A machine with a real systemd: a small Debian, booted as a container; its mountd is that of this checkout.

Its disk is built once, below `build/machines`, and each test gets a layer of its own on top.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.support import cgroups
from tests.support.wait import until

PROJECT = Path(__file__).parents[2]
KEPT = PROJECT / "build" / "machines"
PACKAGES = "systemd,systemd-sysv,dbus,passwd,python3,python3-venv,fuse3"
BUILD_S, BOOT_S, STOP_S, RUN_S = 300.0, 120.0, 120.0, 60.0
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def why_not() -> str:
    """Why there can be no such machine here, "" when there can."""
    missing = [name for name in ("mmdebstrap", "systemd-nspawn", "nsenter") if shutil.which(name) is None]
    if os.geteuid() != 0:
        return "only root can boot a container"
    return f"install {', '.join(missing)} (packages mmdebstrap, systemd-container, util-linux)" if missing else ""


def debian(suite: str) -> Path:
    """The disk of a fresh machine, which nobody may write to; building it takes some 20 s and a Debian mirror. Raises
    OSError with what mmdebstrap said."""
    KEPT.mkdir(parents=True, exist_ok=True)
    tree, done = KEPT / suite, KEPT / f"{suite}.packages"
    with (KEPT / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists() and done.read_text() == PACKAGES:
            return tree
        shutil.rmtree(tree, ignore_errors=True)
        words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", suite, str(tree)]
        built = subprocess.run(words, capture_output=True, text=True, timeout=BUILD_S, check=False)
        if built.returncode != 0:
            raise OSError((built.stderr.strip().splitlines() or [f"exit code {built.returncode}"])[-1])
        done.write_text(PACKAGES)
    return tree


@contextlib.contextmanager
def layer(below: Path, room: Path) -> Iterator[Path]:
    """A disk that may be written to, on top of `below`, which stays as it is. `room`: a directory for it."""
    disk, own = room / "disk", room / "own"
    for path in (disk, own):
        path.mkdir(parents=True)
    mounted: list[Path] = []
    try:
        if _overlay(below, own, disk):
            mounted = [disk]
        elif _mount(
            "-t", "tmpfs", "mountd-t", str(own)
        ):  # an overlay on an overlay, the disk of a container, cannot be
            mounted = [own, disk] if _overlay(below, own, disk) else [own]
        if disk not in mounted:
            subprocess.run(["cp", "-a", "--reflink=auto", f"{below}/.", str(disk)], check=True, timeout=BUILD_S)
        yield disk
    finally:
        for path in reversed(mounted):
            subprocess.run(["umount", "--lazy", str(path)], check=False, timeout=RUN_S)


def _overlay(below: Path, own: Path, disk: Path) -> bool:
    for name in ("upper", "work"):
        (own / name).mkdir()
    options = f"lowerdir={below},upperdir={own}/upper,workdir={own}/work"
    return _mount("-t", "overlay", "mountd-t", "-o", options, str(disk))


def _mount(*words: str) -> bool:
    return subprocess.run(["mount", *words], capture_output=True, timeout=RUN_S, check=False).returncode == 0


def show_checkout(tree: Path) -> None:
    """Makes place for what the machine sees of this one: this checkout, and the Python that runs it."""
    for path in _shown():
        below = tree / path.relative_to("/")
        below.mkdir(parents=True, exist_ok=True)
        for each in (below, *below.parents):  # as the daemon's user must come there, too
            if tree in each.parents:
                each.chmod(0o755)


def _shown() -> list[Path]:
    paths = sorted({PROJECT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()})
    return [path for path in paths if not path.is_relative_to("/usr") and not {*path.parents} & {*paths}]


class Machine:
    """It runs from `with` to the end of it; what it has on its disk stays in `tree`."""

    def __init__(self, tree: Path, *shown: Path) -> None:
        """`shown`: what else of this machine it sees, at the same path."""
        self.tree = tree
        self._shown = [*_shown(), *shown]
        self._console = tree.with_suffix(".console")
        self._process: subprocess.Popen[bytes] | None = None
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        show_checkout(self.tree)
        # Else two machines share all cgroups, and what one removes is missing when the other starts a unit.
        own_cgroup = self._held.enter_context(cgroups.of_its_own())
        words = [
            *own_cgroup,
            "systemd-nspawn",
            "-q",
            "-D",
            str(self.tree),
            "--register=no",
            "--keep-unit",
            "--boot",
            "--console=pipe",
            f"--machine=mountd-t-{secrets.token_hex(4)}",
            "--private-network",  # ports of its own
            "--bind=/dev/fuse",
            *(f"--bind-ro={path}" for path in self._shown),
        ]
        # systemd 256 and newer knows cgroup v2 alone, on whatever this machine has.
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment
            )
        try:
            until(self._answers, BOOT_S, "systemd to answer", every_s=0.1)
            self.run("chmod", "666", "/dev/fuse")
        except BaseException:
            print(self._console.read_text(errors="replace")[-3000:])
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(AssertionError, OSError, subprocess.SubprocessError):
                print(self.run("journalctl", "-b", "--no-pager", "-n", "200", check=False).stdout)
        self.close()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._console.read_text(errors="replace")[-3000:]
        return self._leader() is not None and self.run("systemctl", "list-units", check=False).returncode == 0

    def _leader(self) -> str | None:
        """Its process 1, as this machine numbers it."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return children[0] if children else None

    def run(
        self, *words: str, check: bool = True, timeout_s: float = RUN_S, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        leader = self._leader()
        assert leader is not None
        done = subprocess.run(
            ["nsenter", "-t", leader, "-a", *words],
            env={**ENVIRONMENT, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def out(self, *words: str) -> str:
        return self.run(*words).stdout.strip()

    def kill(self, name: str, pid: int | str) -> None:
        self.run("sh", "-c", f"kill -{name} {pid}")  # a minimal machine has no other kill

    def state(self, unit: str) -> str:
        return self.run("systemctl", "is-active", unit, check=False).stdout.strip()

    def property(self, name: str, unit: str = "mountd") -> str:
        return self.out("systemctl", "show", "-P", name, unit)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Also before it is booted. What runs sees it whole, or as it was."""
        write(self.tree, path, text, mode)

    def close(self) -> None:
        with self._held:
            if self._process is None:
                return
            self._process.terminate()  # nspawn then has its systemd shut down
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def write(tree: Path, path: str, text: str, mode: int = 0o644) -> None:
    file = tree / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(file)


def main(suites: list[str]) -> None:
    """Builds the disks ahead of the tests that need them, where that can be done."""
    if not why_not():
        for suite in suites:
            debian(suite)


if __name__ == "__main__":
    main(sys.argv[1:])
