"""A file as the source of the wanted version: when it is read again, and that it holds nothing else up."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from mountd.daemon.sources import OneFile
from mountd.daemon.watch_files import FileWatch
from mountd.errors import Unavailable
from mountd.gitops import file as source_file
from mountd.gitops import wanted
from mountd.gitops.file import FileSource
from mountd.gitops.wanted import MAX_BYTES
from mountd.settings.plain_file import read_plain

SOON_S = 60.0


class Disk:
    """That a file lies on; while it is `broken` nothing can be read, and what is seen of the file stays the same."""

    broken = False

    async def read(self, path: Path, most: int) -> bytes:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        return read_plain(path, most)


def source(path: Path, disk: Disk, key: str | None = None) -> FileSource:
    return FileSource(path, key, read=disk.read, watch=OneFile(path, FileWatch(tuple)))


async def test_a_file_that_could_not_be_read_is_tried_again_although_it_looks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_file, "AGAIN_S", 0.1)
    path, disk = tmp_path / "version", Disk()
    path.write_text("v23\n")
    found = source(path, disk)
    try:
        disk.broken = True
        with pytest.raises(Unavailable):
            await found.read()
        disk.broken = False
        await asyncio.wait_for(found.changed(), SOON_S)
        assert (await found.read()).version == "v23"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(found.changed(), 1.0)
    finally:
        found.close()


async def test_nothing_waits_for_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of this size takes seconds: not those of the event loop."""
    path = tmp_path / "values.yaml"
    rest = "tts: {version: v23}\n"
    path.write_text("".join(f"key{number}: value\n" for number in range((MAX_BYTES - len(rest)) // 16)) + rest)
    threads = []

    def parse(*what: Any) -> str:
        threads.append(threading.current_thread())
        return wanted.parse(*what)

    monkeypatch.setattr(source_file, "parse", parse)
    found = source(path, Disk(), "tts.version")
    assert (await found.read()).version == "v23"
    found.close()
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()
