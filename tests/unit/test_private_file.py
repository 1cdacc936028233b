"""Files that only mountd's user may read: replaced whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mountd.errors import CannotStart
from mountd.rclone.private_file import identity, read, remove_leftovers, replace
from tests.support.disk_order import DiskOrder


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


def test_it_is_on_disk_before_it_is_in_place_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = DiskOrder(monkeypatch, tmp_path)
    replace(tmp_path / "file", "text")
    content, place, directory = order.events
    assert content.startswith("sync .file.")
    assert (place, directory) == ("put file", "sync .")
    assert replace(tmp_path / "file", "text") is False
    assert len(order.events) == 3, "nothing is written that is there already"


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


def test_a_disk_that_fails_leaves_what_was_there_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    replace(path, "one")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CannotStart) as refused:
        replace(path, "two")
    assert (refused.value.code, str(tmp_path) in refused.value.hint) == ("conf-unwritable", True)
    assert (path.read_text(), os.listdir(tmp_path)) == ("one", ["file"])


def test_leftovers_of_a_previous_run_go(tmp_path: Path) -> None:
    (tmp_path / "aws-a-directory.json").mkdir()
    for name in ("rclone.conf", "rclone.conf.old123", ".rclone.conf.abc", "aws-gone.json", "aws-store.json", "rc.sock"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path, ("aws-*.json", "rclone.conf?*", ".rclone.conf.*"), keep={"aws-store.json"})
    assert sorted(os.listdir(tmp_path)) == ["aws-a-directory.json", "aws-store.json", "rc.sock", "rclone.conf"]
