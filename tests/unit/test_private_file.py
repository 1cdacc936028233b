"""Files that only mountd's user may read: replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mountd.errors import CannotStart
from mountd.rclone.private_file import identity, read, remove_leftovers, replace


def test_written_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "private" / "file"
    assert (read(path), identity(path)) == (None, None)
    assert replace(path, "one") is True
    first = identity(path)
    assert replace(path, "one") is False
    assert identity(path) == first
    assert replace(path, "two") is True
    assert identity(path) != first
    path.chmod(0o644)
    assert replace(path, "two") is True
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["file"]


def test_what_somebody_else_wrote_meanwhile_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("theirs")
    with pytest.raises(BlockingIOError):
        replace(path, "mine", expected="what I read")
    assert path.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["file"]
    assert replace(path, "mine", expected="theirs") is True


def test_a_file_that_is_no_text_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xfe")
    assert read(path) is None
    assert replace(path, "text") is True


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart) as refused:
        replace(tmp_path / "file" / "file", "x")
    assert refused.value.code == "conf-unwritable"


def test_leftovers_of_a_previous_run_go(tmp_path: Path) -> None:
    for name in ("rclone.conf", "rclone.conf.old123", ".rclone.conf.abc", "aws-gone.json", "aws-store.json", "rc.sock"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path, ("aws-*.json", "rclone.conf?*", ".rclone.conf.*"), keep={"aws-store.json"})
    assert sorted(os.listdir(tmp_path)) == ["aws-store.json", "rc.sock", "rclone.conf"]
