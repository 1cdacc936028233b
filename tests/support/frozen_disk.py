"""A disk that stops to answer writes and goes on again: a small file system of its own, frozen. Needs root."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

TIMEOUT_S = 60.0
# It thaws as soon as nobody holds the other end of its pipe, also when the test was killed: who waits for a frozen
# disk can be ended by nothing else.
_FREEZE = 'fsfreeze -f "$1" && echo frozen && cat > /dev/null; fsfreeze -u "$1"'


class FrozenDisk:
    """At `path` until the end of a `with`, kept in the file `image`."""

    def __init__(self, path: Path, image: Path, mib: int = 200) -> None:
        self.path, self._image, self._mib = path, image, mib
        self._frozen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(self._mib << 20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        _run("mount", "-o", "loop", str(self._image), str(self.path))
        return self

    def freeze(self) -> None:
        """Who writes there waits from now on, in the kernel, deaf to SIGKILL."""
        argv = ["sh", "-c", _FREEZE, "sh", str(self.path)]
        self._frozen = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        assert self._frozen.stdout is not None
        assert self._frozen.stdout.readline() == b"frozen\n"

    def thaw(self) -> None:
        if self._frozen is not None:
            self._frozen.communicate(timeout=TIMEOUT_S)
            self._frozen = None

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.thaw()
        _run("umount", "-l", str(self.path))


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
