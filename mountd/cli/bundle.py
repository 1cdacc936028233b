"""A support bundle: parts gathered side by side with deadlines, redacted, bounded, and written as one private archive.

A part that fails, or does not end in time, is named in the bundle, and the bundle is made all the same.
"""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mountd.clock import now_text
from mountd.errors import MountdError, cause_of
from mountd.settings.redaction import Redactor
from mountd.text import dumps

PART_BYTES = 2 * 1024 * 1024
TOTAL_BYTES = 20 * 1024 * 1024
"""Of all parts together, before they are compressed."""
NOTES = "notes.txt"
Result = TypeVar("Result")
Content = str | Mapping[str, object]
Files = Mapping[str, Content]
"""name in the bundle → text, or a JSON document"""


@dataclass(frozen=True, slots=True)
class Part:
    """`gather` → files; it may block, raise, and never end. `limit_s`: how long it is waited for."""

    name: str
    gather: Callable[[], Files]
    limit_s: float = 10.0


@dataclass
class Bundle:
    """What goes into the archive; `notes` say what could not be had, and what was cut."""

    redactor: Redactor
    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _bytes: int = 0

    def gather(self, parts: Iterable[Part]) -> None:
        """All parts begin at once, each in a thread that does not keep the process from ending."""
        running = [_Running(part) for part in parts]
        began = time.monotonic()
        for each in running:
            each.thread.join(max(0.0, began + each.part.limit_s - time.monotonic()))
            if each.thread.is_alive():
                self.notes.append(f"{each.part.name}: no end after {each.part.limit_s:g} s")
            elif each.failure:
                self.notes.append(f"{each.part.name}: {each.failure}")
            for name, content in each.files.items():
                self.add(name, content)

    def add(self, name: str, content: Content) -> None:
        """Without secrets; the end of what is too long."""
        text = content if isinstance(content, str) else dumps(_dict(self.redactor.document(content)), indent=1)
        # A document is redacted value by value already; its text may stand in quotes, which the words of a text forbid.
        data = (self.redactor.text(text) if isinstance(content, str) else text).encode("utf-8", "backslashreplace")
        room = min(PART_BYTES, TOTAL_BYTES - self._bytes)
        if len(data) > room:
            self.notes.append(f"{name}: only its last {room} of {len(data)} bytes")
            data = data[len(data) - room :] if room > 0 else b""
            data = data[data.find(b"\n") + 1 :]  # from the beginning of a line
        if data:
            self.files[name] = data
            self._bytes += len(data)

    def write(self, path: Path) -> int:
        """The archive, for its owner alone; its size in bytes. Raises MountdError."""
        stem = path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz") or "mountd-debug"
        notes = "".join(f"{self.redactor.text(note)}\n" for note in self.notes) or "nothing is missing\n"
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                with tarfile.open(fileobj=file, mode="w:gz") as archive:
                    for name, data in (*self.files.items(), (NOTES, notes.encode())):
                        entry = tarfile.TarInfo(f"{stem}/{name}")
                        entry.size, entry.mode, entry.mtime = len(data), 0o600, time.time()
                        archive.addfile(entry, io.BytesIO(data))
                return file.tell()
        except FileExistsError:
            raise MountdError(f"cannot write {path}: it exists", hint="name another file with --output") from None
        except OSError as error:
            raise MountdError(
                f"cannot write {path}: {cause_of(error)}", hint="name another file with --output"
            ) from None


def within(limit_s: float, what: str, work: Callable[[], Result]) -> Result:
    """What `work` returns. Raises MountdError when it takes longer: then it is left behind, in a thread."""
    results: list[Result] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(limit_s)
    if failures:
        raise failures[0]
    if not results:
        raise MountdError(f"cannot {what}: no end after {limit_s:g} s", hint="see whether a disk does not answer")
    return results[0]


class _Running:
    """A part in its thread."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.files: Files = {}
        self.failure = ""
        self.thread = threading.Thread(target=self._run, name=part.name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.files = self.part.gather()
        except MountdError as error:
            self.failure = error.text
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"


def default_name() -> str:
    return f"mountd-debug-{now_text('seconds').replace(':', '').replace('-', '')}.tar.gz"


def _dict(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {"value": value}
