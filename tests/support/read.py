"""Programs that read through a mount, as children that can be killed: this process never touches one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

# Each argument is PATH:OFFSET:SIZE (-1: to the end). Prints for each, in order, the SHA-256 or the name of the error.
_READER = r"""
import errno, hashlib, json, sys
for word in sys.argv[1:]:
    path, offset, left = word.rsplit(":", 2)
    left, digest = int(left), hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(int(offset))
            while left and (data := file.read(131072 if left < 0 else min(131072, left))):
                digest.update(data)
                left -= len(data) if left > 0 else 0
        print(json.dumps(digest.hexdigest()), flush=True)
    except OSError as error:
        print(json.dumps(errno.errorcode[error.errno]), flush=True)
"""
Part = tuple[Path, int, int]


class Reader:
    """A process that reads parts of files, one after the other; killed by `close` at the latest."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._count = len(parts)
        words = [f"{path}:{offset}:{size}" for path, offset, size in parts]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _READER, *words], stdout=subprocess.PIPE, text=True, cwd="/"
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def done(self) -> bool:
        return self._process.poll() is not None

    def result(self, timeout_s: float) -> list[str]:
        """A digest or an error name (EIO) for each part. Raises subprocess.TimeoutExpired."""
        out, _ = self._process.communicate(timeout=timeout_s)
        found: list[str] = [json.loads(line) for line in out.splitlines()]
        assert len(found) == self._count, f"the reader ended with {self._process.returncode}: {found}"
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """The mount must be alive or gone by then: a reader of a hung one cannot be killed."""
        self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait(60)


def read(parts: Sequence[Part], timeout_s: float = 30.0) -> list[str]:
    """As Reader.result, in one go."""
    with Reader(parts) as reader:
        return reader.result(timeout_s)


def digests(directory: Path) -> dict[str, str]:
    """Of every file below a directory on local disk, by its path there."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def read_like(wanted: Mapping[str, str], directory: Path, timeout_s: float = 30.0) -> dict[str, str]:
    """The same files below a directory on a mount: digests, or names of errors."""
    found = read([(Path(os.path.join(directory, name)), 0, -1) for name in wanted], timeout_s)
    return dict(zip(wanted, found, strict=True))
