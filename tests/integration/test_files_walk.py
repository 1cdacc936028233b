"""The files worker walks a tree: every file in it with its size, in pieces, and from its start in a new worker."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mountd.errors import DiskError
from mountd.files import client
from mountd.files.client import Files
from tests.support.shelf import until

SOON_S = 30.0


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    files = Files("test", {"MOUNTD_INSTANCE": "test-walk"})
    yield files
    await files.close()


def tree(directory: Path, count: int = 5) -> dict[str, int]:
    """Files in directories, one with an odd name; a link to a file, one to nothing, a FIFO and an empty directory."""
    files = {f"d{number % 3}/deep/f{number}": number for number in range(count)} | {"caf\udce9": 3, "top\n": 0}
    for path, size in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(b"x" * size)
    (directory / "empty").mkdir()
    (directory / "link").symlink_to("caf\udce9")
    (directory / "nowhere").symlink_to("nothing")
    os.mkfifo(directory / "fifo")
    return {**files, "link": 3}


def walked(to: Path) -> dict[str, int]:
    return dict(map(json.loads, to.read_text().splitlines()))


@pytest.mark.parametrize("piece", [1, 2000])
async def test_walk(files: Files, tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WALK_PIECE", piece)
    found = tree(tmp_path / "tree")
    to = tmp_path / "found"
    assert await files.walk(str(tmp_path / "tree"), to, timeout_s=SOON_S) == len(found)
    assert walked(to) == found
    with pytest.raises(DiskError) as missing:
        await files.walk(str(tmp_path / "none"), to, timeout_s=SOON_S)
    assert missing.value.errno == errno.ENOENT


async def test_a_walk_begins_again_in_a_new_worker(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "WALK_PIECE", 1)
    found = tree(tmp_path / "tree", 50)
    walking = asyncio.create_task(files.walk(str(tmp_path / "tree"), tmp_path / "found", timeout_s=SOON_S))
    await until((tmp_path / "found").exists, "the walk to begin")
    assert files.pid is not None
    os.kill(files.pid, signal.SIGKILL)
    assert await walking == len(found)
    assert walked(tmp_path / "found") == found


async def test_several_walks_at_once(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the models of one mount."""
    monkeypatch.setattr(client, "WALK_PIECE", 1)
    found = tree(tmp_path / "tree")
    to = [tmp_path / f"found{number}" for number in range(8)]
    await asyncio.gather(*(files.walk(str(tmp_path / "tree"), each, timeout_s=SOON_S) for each in to))
    assert [walked(each) for each in to] == [found] * len(to)
