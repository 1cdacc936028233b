"""What an rclone can do is asked once as long as it is the same file, and never believed of anything doubtful."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mountd.rclone import remembered
from mountd.rclone.remembered import RcloneFeatures
from tests.support.wait import until

SAME = (1, 2, 3, 4, 5)
ABLE = RcloneFeatures(
    (1, 75, 2), frozenset({"read-only"}), {"sftp": frozenset({"pass"})}, {"sftp": frozenset({"pass", "host"})}
)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "cache"
    directory.mkdir()
    monkeypatch.setenv("CACHE_DIRECTORY", str(directory))
    monkeypatch.setattr(remembered, "LIMIT_S", 60.0)  # its disk may be busy
    return directory / remembered.NAME


def program(path: Path) -> Path:
    path.write_bytes(b"\x7fELF and more")
    return path


def test_it_is_what_was_kept_as_long_as_the_file_is_the_same(tmp_path: Path, kept: Path) -> None:
    path = program(tmp_path / "rclone")
    assert remembered.recall(path, SAME) is None
    remembered.keep(path, SAME, ABLE)
    assert remembered.recall(path, SAME) == ABLE
    assert remembered.recall(path, (*SAME[:4], 6)) is None
    assert remembered.recall(tmp_path / "other", SAME) is None
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_few_are_kept_and_the_oldest_goes_first(tmp_path: Path, kept: Path) -> None:
    paths = [program(tmp_path / f"rclone-{number}") for number in range(remembered.MOST + 1)]
    for path in paths:
        remembered.keep(path, SAME, RcloneFeatures((1, 60, 1)))
    assert [remembered.recall(path, SAME) is not None for path in paths] == [False, *[True] * remembered.MOST]
    assert len(json.loads(kept.read_text())["programs"]) == remembered.MOST


def test_of_a_script_nothing_is_kept(tmp_path: Path, kept: Path) -> None:
    path = tmp_path / "rclone"
    path.write_text('#!/bin/sh\nexec rclone-of-today "$@"\n')
    remembered.keep(path, SAME, ABLE)
    assert not kept.exists()


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path, kept: Path) -> None:
    kept.parent.rmdir()
    remembered.keep(program(tmp_path / "rclone"), SAME, ABLE)
    assert not kept.parent.exists()


def _another_mountd(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mountd": "0.0.1"}))


def _other_flags(file: Path) -> None:
    document = json.loads(file.read_text())
    for entry in document["programs"].values():
        entry["flags"] = None
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_text("{"),
        lambda file: file.write_text("[]"),
        lambda file: file.write_bytes(b"\xff"),
        lambda file: file.write_text(" " * (remembered.MOST_BYTES + 1)),
        lambda file: file.chmod(0o666),
        lambda file: (file.unlink(), file.mkdir()),
        lambda file: file.write_text("[" * 100_000),
        _another_mountd,
        _other_flags,
    ],
    ids=["torn", "other", "binary", "large", "of-anybody", "directory", "deep", "another-mountd", "flags"],
)
def test_what_is_doubtful_is_asked_again_and_replaced(
    tmp_path: Path, kept: Path, spoil: Callable[[Path], object]
) -> None:
    path = program(tmp_path / "rclone")
    remembered.keep(path, SAME, ABLE)
    spoil(kept)
    assert remembered.recall(path, SAME) is None
    remembered.keep(path, SAME, ABLE)
    assert kept.is_dir() or remembered.recall(path, SAME) == ABLE


def test_a_disk_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "LIMIT_S", 0.05)
    os.mkfifo(kept)  # opening it waits for a writer
    assert remembered.recall(program(tmp_path / "rclone"), SAME) is None
    # Its thread goes on, and ends; it may not even have begun to wait.
    os.close(until(lambda: os.open(kept, os.O_WRONLY | os.O_NONBLOCK), 60.0, "the thread to wait", every_s=0.001))


def test_nothing_is_read_or_kept_where_somebody_else_may_write(tmp_path: Path, kept: Path) -> None:
    path = program(tmp_path / "rclone")
    remembered.keep(path, SAME, ABLE)
    elsewhere = kept.rename(kept.with_name("elsewhere"))
    kept.symlink_to(elsewhere)
    assert remembered.recall(path, SAME) is None
    elsewhere.rename(kept)
    assert remembered.recall(path, SAME) is not None
    kept.parent.chmod(0o777)
    assert remembered.recall(path, SAME) is None
    kept.unlink()
    remembered.keep(path, SAME, ABLE)
    assert not kept.exists()
