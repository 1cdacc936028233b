"""A machine with a real systemd: a small Debian, booted as a container; its mountd is that of this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.support.wait import until

PROJECT = Path(__file__).parents[2]
PACKAGES = "systemd,systemd-sysv,dbus,python3,fuse3"
BUILD_S, BOOT_S, STOP_S, RUN_S = 300.0, 60.0, 60.0, 60.0
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


def build(tree: Path) -> str:
    """Lays out the machine's disk, which takes some 20 s and a Debian mirror; why it failed, if it did."""
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(tree)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    program = tree / "usr/local/bin/mountd"
    program.symlink_to(Path(sys.prefix) / "bin" / "mountd")
    for path in _shown():
        below = tree / path.relative_to("/")
        below.mkdir(parents=True, exist_ok=True)
        for each in (below, *below.parents):  # as the daemon's user must come there, too
            if tree in each.parents:
                each.chmod(0o755)
    with (tree / "etc/fuse.conf").open("a") as conf:
        conf.write("user_allow_other\n")
    return ""


def _shown() -> list[Path]:
    """What of this machine the other one sees: this checkout, and the Python that runs it."""
    paths = sorted({PROJECT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()})
    return [path for path in paths if not path.is_relative_to("/usr") and not {*path.parents} & {*paths}]


class Machine:
    """It runs from `with` to the end of it; what it has on its disk stays in `tree`."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self._console = tree.with_suffix(".console")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        shown = [f"--bind-ro={path}" for path in _shown()]
        words = [
            "systemd-nspawn",
            "-q",
            "-D",
            str(self.tree),
            "--register=no",
            "--keep-unit",
            "--boot",
            "--console=pipe",
        ]
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                [*words, f"--machine=mountd-t-{os.getpid()}", "--bind=/dev/fuse", *shown],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        try:
            until(self._answers, BOOT_S, "systemd to answer", every_s=0.1)
            self.run("chmod", "666", "/dev/fuse")
        except BaseException:
            print(self._console.read_text(errors="replace")[-3000:])
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
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

    def run(self, *words: str, check: bool = True, timeout_s: float = RUN_S) -> subprocess.CompletedProcess[str]:
        leader = self._leader()
        assert leader is not None
        done = subprocess.run(
            ["nsenter", "-t", leader, "-a", *words],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def state(self, unit: str) -> str:
        return self.run("systemctl", "is-active", unit, check=False).stdout.strip()

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Also before it is booted."""
        write(self.tree, path, text, mode)

    def close(self) -> None:
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
    file.write_text(text)
    file.chmod(mode)
