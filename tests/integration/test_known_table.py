"""The table of mounts that is read only when the kernel says that it changed shows each change at once."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.fuse import table
from mountd.fuse.watch import known_table, read_table
from tests.support.machine import Tmpfs

pytestmark = pytest.mark.root


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="mountd-t-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def ids(entries: tuple[table.Entry, ...], path: Path) -> list[int]:
    return [entry.mount_id for entry in entries if entry.mount_point == str(path)]


@pytest.mark.parametrize("asked_for", ["all", "one"])
def test_what_comes_and_goes_is_known_at_once(place: Path, asked_for: str) -> None:
    path = place / "a"
    mount_point = str(path) if asked_for == "one" else ""
    for _ in range(30):
        assert ids(known_table(mount_point), path) == []
        with Tmpfs(path, mib=1):
            found = ids(known_table(mount_point), path)
            assert found == ids(read_table(), path)
            assert len(found) == 1
            with Tmpfs(path, mib=1):
                assert ids(known_table(mount_point), path) == ids(read_table(), path)
            assert ids(known_table(mount_point), path) == found


def test_a_mount_that_is_moved(place: Path) -> None:
    here, there = place / "a" / "here", place / "a" / "there"
    with Tmpfs(place / "a", mib=1):
        subprocess.run(["mount", "--make-private", place / "a"], check=True, timeout=20)  # else none below can be moved
        with Tmpfs(here, mib=1), Tmpfs(there, mib=1):
            (moved,) = ids(known_table(), here)
            subprocess.run(["mount", "--move", here, there], check=True, timeout=20)
            assert ids(known_table(), here) == []
            assert moved in ids(known_table(), there)
