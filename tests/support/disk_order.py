"""In which order files are brought on disk, put in place and removed: a loss of power keeps what came before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


class DiskOrder:
    """What happens below `root`, by path relative to it: `sync a`, `put b` (renamed to that), `gone c`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.events: list[str] = []
        self._root = root.resolve()
        fsync, unlink = os.fsync, os.unlink

        def sync(fd: int) -> None:
            fsync(fd)
            self._note("sync", os.readlink(f"/proc/self/fd/{fd}"))

        def remove(path: Any, **ways: Any) -> None:
            unlink(path, **ways)
            self._note("gone", os.fspath(path))

        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(os, "unlink", remove)
        for name in ("rename", "replace"):
            self._watch(monkeypatch, name)

    def _watch(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(os, name)

        def put(source: Any, target: Any, **ways: Any) -> None:
            real(source, target, **ways)
            self._note("put", os.fspath(target))

        monkeypatch.setattr(os, name, put)

    def _note(self, what: str, path: str) -> None:
        self.events.append(f"{what} {os.path.relpath(path, self._root)}")

    def is_so(self, *events: str) -> bool:
        """Whether each of these follows after the one before it; others may lie between."""
        left = iter(self.events)
        return all(event in left for event in events)
