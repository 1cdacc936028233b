"""An app that loads a model as IndexTTS2 does: `loader.py serve|load|forget …`, a stand-in with a clock.

It copies all bytes into memory of its own and hashes them only when it is asked for their digests, so that what it
measures is reading. Moments are seconds on the monotonic clock, which all processes of a machine share.
Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import mmap
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

BEGAN = time.monotonic()
BLOCK_BYTES = 1024 * 1024
ZIP_TAIL_BYTES = 65_557


def blocks(begin: int, end: int, size: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
    for at in range(begin, end, size):
        yield at, min(at + size, end)


def load(path: str, shuffle_bytes: int) -> mmap.mmap | None:
    """Its bytes; None of an empty one. `shuffle_bytes`: of the parts in which tensors come in a random order; 0: in
    the order of the file. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return None
        memory = mmap.mmap(-1, size)
        with memoryview(memory) as target:
            if path.endswith(".safetensors"):
                copy_mapped(file.fileno(), target, shuffle_bytes)
            else:
                read_forward(file.fileno(), target, tail_first=path.endswith((".pth", ".pt", ".bin")))
        return memory


def copy_mapped(descriptor: int, target: memoryview, shuffle_bytes: int) -> None:
    """The header, then the tensors."""
    size = len(target)
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as source:
        start = min(8 + int.from_bytes(source[:8], "little"), size)
        target[:start] = source[:start]
        parts = [*blocks(start, size, shuffle_bytes or BLOCK_BYTES)]
        if shuffle_bytes:
            random.Random(0).shuffle(parts)  # noqa: S311 (no secret)
        for begin, end in parts:
            for at, until in blocks(begin, end):
                target[at:until] = source[at:until]


def read_forward(descriptor: int, target: memoryview, *, tail_first: bool) -> None:
    """The directory at the end of a ZIP, then all from front to back."""
    size = len(target)
    if tail_first:
        os.preadv(descriptor, [target[max(size - ZIP_TAIL_BYTES, 0) :]], max(size - ZIP_TAIL_BYTES, 0))
    at = 0
    while at < size:
        got = os.preadv(descriptor, [target[at : at + BLOCK_BYTES]], at)
        if not got:
            raise OSError(f"the file has {at} bytes, not {size}")
        at += got


class Model:
    """What was loaded, and when."""

    def __init__(self, given: argparse.Namespace) -> None:
        time.sleep(given.imports)
        self._imported = time.monotonic()
        self._memory: dict[str, mmap.mmap | None] = {}
        self._seconds: dict[str, float] = {}
        for name in given.files or sorted(below(given.model_dir)):
            before = time.monotonic()
            self._memory[name] = load(os.path.join(given.model_dir, name), given.shuffle)
            self._seconds[name] = round(time.monotonic() - before, 4)
        self._loaded = self.answers = time.monotonic()
        self._digests: dict[str, str] = {}

    def as_json(self) -> dict[str, Any]:
        """`answers`: since when it has answered."""
        return {
            "pid": os.getpid(),
            "began": BEGAN,
            "imported": self._imported,
            "loaded": self._loaded,
            "answers": self.answers,
            "load_s": self._loaded - self._imported,
            "bytes": sum(len(each) for each in self._memory.values() if each),
            "seconds": self._seconds,
        }

    def digests(self) -> dict[str, str]:
        for name, memory in self._memory.items():
            if name not in self._digests:
                self._digests[name] = hashlib.sha256(memory or b"").hexdigest()
        return self._digests


def below(directory: str) -> Iterator[str]:
    """Files, relative to it; the directory may be a link."""
    root = os.path.realpath(directory)
    for parent, _, names in os.walk(root):
        for name in names:
            yield os.path.relpath(os.path.join(parent, name), root)


def serve(model: Model, port: int) -> None:
    """`/digests`, and at every other path the moments."""
    server = socket.create_server(("127.0.0.1", port), backlog=64)
    model.answers = time.monotonic()
    while True:
        client, _ = server.accept()
        with client, contextlib.suppress(OSError):
            client.settimeout(5)
            asked = client.recv(65536).split(b" ", 2)
            found = model.digests() if b"/digests" in asked[1:2] else model.as_json()
            body = json.dumps(found).encode()
            head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)


def forget(paths: list[str]) -> None:
    """The kernel's copy of these files and of all below these directories, and of nothing else."""
    for path in paths:
        for name in [path] if os.path.isfile(path) else [os.path.join(path, each) for each in below(path)]:
            with contextlib.suppress(OSError), open(name, "rb", buffering=0) as file:
                with contextlib.suppress(OSError):  # a mount may not know it
                    os.fdatasync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=("serve", "load", "forget"))
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--model_dir", default=".")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--imports", type=float, default=0.0, help="seconds before it begins to load")
    parser.add_argument("--files", nargs="*", default=[], help="in this order; default: all")
    parser.add_argument("--shuffle", type=int, default=0, help="tensors of so many bytes in a random order")
    parser.add_argument("--digests", action="store_true", help="`load` prints them as well")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    if given.do == "forget":
        forget(given.paths)
        return
    model = Model(given)
    if given.do == "serve":
        serve(model, given.port)
    print(json.dumps(model.as_json() | ({"digests": model.digests()} if given.digests else {})), flush=True)


if __name__ == "__main__":
    main()
