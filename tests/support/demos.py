"""`mountd demo` as a newcomer starts it, and the place where demos of one test run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from mountd.process.instance import Instance
from tests.support import cgroups, dies_with_us, hold_port
from tests.support.wait import until

PROGRAM = Path(sys.prefix) / "bin" / "mountd"
READY_S = 60.0
STOP_S = 60.0
TYPED_S = 60.0
FOREIGN = ("MOUNTD_", "XDG_", "NOTIFY_", "PYTHON")
"""Variables that no newcomer has."""


class Demo:
    """One `mountd demo` in a room of its own: its own XDG_RUNTIME_DIR and /tmp, unless another demo shares them."""

    def __init__(
        self, room: Path, *words: str, cwd: Path | None = None, path: str | None = None, program: Path = PROGRAM
    ) -> None:
        self.room, self.program = room, program
        self._held = [hold_port() for _ in range(3)]
        self.port, s3_port, http_port = (held.getsockname()[1] for held in self._held)
        self.out = room / f"out-{self.port}"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)},
            "XDG_RUNTIME_DIR": str(room / "xdg"),
            "TMPDIR": str(room / "tmp"),
            "PATH": path or "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        }
        self.cwd = cwd or room
        ports = ["--port", str(self.port), "--s3-port", str(s3_port), "--http-port", str(http_port)]
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                dies_with_us([str(program), "demo", *ports, *words]),
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

    def type(self, line: str, timeout_s: float = TYPED_S) -> subprocess.CompletedProcess[str]:
        """A line in another terminal, in the directory where the demo was started."""
        return subprocess.run(
            ["sh", "-c", line],
            cwd=self.cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def mountd(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.type(" ".join([str(self.program), *words]))

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
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
            instance = Instance.of(root / "state", root / "run").id
            subprocess.run([sys.executable, "-I", "-S", str(orphans), instance], timeout=60, check=False)
            cgroups.clear(instance)
        for point in reversed(self.mounts()):
            subprocess.run(["fusermount3", "-uz", point], timeout=60, check=False)
        shutil.rmtree(self.path, ignore_errors=True)
