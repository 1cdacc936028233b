"""Reads the files of an outbox on threads: their digests, and whether each still holds what was hashed.

Used in the worker's process: knows only the standard library.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from mountd.outbox import tree
from mountd.outbox.settling import FileLook

Message = dict[str, Any]
BLOCK_BYTES = 1024 * 1024
HASHERS = 2


def failed(error: OSError) -> Message:
    number = error.errno or errno.EIO
    return {"error": {"errno": number, "text": (error.strerror or os.strerror(number)).lower()}}


class FileReading:
    """`known_root` opens the directory, and raises OSError when it is missing or another one; `emit` sends an answer.

    Files that are hashed stay open, by the number of the request, until they are released.
    """

    def __init__(self, known_root: Callable[[], AbstractContextManager[int]], emit: Callable[[Message], None]) -> None:
        self._known_root, self._emit = known_root, emit
        self._held: dict[int, tree.Held] = {}
        self._work: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._turn = threading.Lock()
        self.under_way = self.bytes_read = 0
        for _ in range(HASHERS):
            threading.Thread(target=self._run, daemon=True).start()

    def takes(self, message: Message) -> bool:
        """Whether a file has to be read for it: then a thread answers."""
        if message["do"] != "hash" and not (message["do"] == "check" and self._is_doubtful(message["of"])):
            return False
        with self._turn:
            self.under_way += 1
        self._work.put(message)
        return True

    def look(self, number: int) -> FileLook | None:
        """How the file looked when it was hashed, if nothing has happened to it since."""
        held = self._held.get(number)  # none: a former process had it
        return held.seen if held is not None and held.untouched else None

    def release(self, number: int) -> None:
        if (held := self._held.pop(number, None)) is not None:
            os.close(held.file)

    # -- on a thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            message = self._work.get()
            try:
                if message["do"] == "check":
                    answer = self._check(message["of"])
                else:
                    answer = self._hash(message["id"], message["path"], FileLook(*message["look"]))
            except OSError as error:
                answer = failed(error)
            with self._turn:
                self.under_way -= 1
            self._emit({"id": message["id"], **answer})

    def _hash(self, number: int, path: str, expected: FileLook) -> Message:
        with self._known_root() as root:  # a directory that is missing is no file that is gone
            try:
                file = tree.open_file(root, path)
            except OSError as error:
                if error.errno in tree.GONE:
                    return {"is": "gone"}
                raise
        held = tree.Held(file, expected)
        try:
            sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            if not self._read(held, sha256, md5):
                os.close(file)
                return {"is": "changed"}
        except BaseException:
            os.close(file)
            raise
        held.sha256 = sha256.hexdigest()
        self._held[number] = held
        return {"sha256": held.sha256, "md5": md5.hexdigest(), "fd": file}

    def _check(self, number: int) -> Message:
        """By its content: it was renamed or removed, its mode or owner was changed, or it was written to."""
        held = self._held.get(number)
        if held is None:
            return {"look": None}
        seen, sha256 = tree.look_of(os.fstat(held.file)), hashlib.sha256()
        if not self._read(held, sha256) or sha256.hexdigest() != held.sha256:
            return {"look": None}
        held.seen = seen
        return {"look": seen}

    def _is_doubtful(self, number: int) -> bool:
        """Whether something has happened to it, while its size and time are the same."""
        held = self._held.get(number)
        try:
            return held is not None and held.same and not held.untouched
        except OSError:
            return True  # the thread says so in its answer

    def _read(self, held: tree.Held, *digests: hashlib._Hash) -> bool:
        """All of it into the digests; False: it has changed."""
        at = 0
        while held.same and (block := os.pread(held.file, BLOCK_BYTES, at)):
            at += len(block)
            for digest in digests:
                digest.update(block)
            with self._turn:
                self.bytes_read += len(block)
        return held.same and at == held.look.size
