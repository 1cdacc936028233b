"""What the process of an outbox's directory finds, remembers and forgets, step by step."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from mountd.outbox import scanning, tree, worker

SETTLE_S = 0.2


def scan(it: worker.OutboxWorker, known: Collection[str] = ()) -> dict[str, Any]:
    """Goes through a whole scan, as the daemon does: `known` is what its journal has as it is."""
    answer = it._do({"do": "scan"})
    while "seen" in answer:
        new = [at for at, (path, _) in enumerate(answer["seen"]) if path not in known]
        answer = it._do({"do": "scan on", "new": new})
    return answer


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "outputs"
    made.mkdir()
    return made


def test_a_process_that_looks_at_much_says_so_whatever_it_looks_at(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, object]] = []
    monkeypatch.setattr(worker, "emit", said.append)
    monkeypatch.setattr(worker, "ALIVE_S", 0.0)
    for number in range(100):
        (directory / f"{number}.tmp").touch()
    it = worker.OutboxWorker(str(directory), SETTLE_S, ["*"], ["*.tmp"])
    assert scan(it)["files"] == 0
    assert sum("alive" in each for each in said) >= 100


def test_new_files_are_found_however_many_lie_there_that_are_done(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without inotify too, as where its limit is reached."""
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(worker, "emit", said.append)
    monkeypatch.setattr(worker, "MOST_FILES", 3)
    for number in range(20):
        (directory / f"{number}").touch()
    it = worker.OutboxWorker(str(directory), 0.0, ["*"], [])
    it._inotify = None
    journal = {f"{number}" for number in range(10)}  # done, and known since before this process began

    def found() -> set[str]:
        new = {path for each in said for path, _ in each.get("found", ())}
        del said[:]
        return new

    for _ in range(4):  # three at a time, and those that are done are not among them
        assert scan(it, journal)["files"] == 20
        it._settle(time.monotonic())
        new = found()
        assert not new & journal
        journal |= new
        assert len(it._settling) <= 6
    assert journal == {f"{number}" for number in range(20)}
    (directory / "another").touch()
    assert not scan(it, journal)["full"]
    it._settle(time.monotonic())
    assert found() == {"another"}
    for number in range(20):
        (directory / f"{number}").unlink()
        it._entry(f"{number}", tree.IN_DELETE)  # seen one by one
    assert {path for each in said for path in each.get("gone", ())} == {f"{number}" for number in range(20)}


def test_what_cannot_be_taken_up_now_is_not_asked_for(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "emit", lambda _: None)
    monkeypatch.setattr(worker, "MOST_FILES", 3)
    monkeypatch.setattr(scanning, "MOST_AT_ONCE", 1)
    for number in range(20):
        (directory / f"{number}").touch()
    it = worker.OutboxWorker(str(directory), 60.0, ["*"], [])
    pages, answer = 0, it._do({"do": "scan"})
    while "seen" in answer:
        pages, answer = pages + 1, it._do({"do": "scan on", "new": [0]})
    assert (answer["files"], answer["full"]) == (20, True)
    assert pages == 4


def test_of_remembered_files_a_scan_sees_which_are_gone(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(worker, "emit", said.append)
    (directory / "d").mkdir()
    for name in ("a", "b", "d/c"):
        (directory / name).touch()
    it = worker.OutboxWorker(str(directory), 0.0, ["*"], [])
    scan(it, {"a", "b", "d/c"})
    (directory / "a").unlink()
    (directory / "d").rename(directory / "e")
    del said[:]
    scan(it, set())
    assert {path for each in said for path in each.get("gone", ())} == {"a", "d/c"}
    assert "e/c" in it._settling


def test_what_lies_below_a_directory_that_cannot_be_read_is_not_gone(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(worker, "emit", said.append)
    (directory / "d").mkdir()
    for name in ("a", "d/b"):
        (directory / name).touch()
    it = worker.OutboxWorker(str(directory), 0.0, ["*"], [])
    scan(it, {"a", "d/b"})
    opens = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "d":
            raise PermissionError(errno.EACCES, "refused")
        return opens(path, flags, mode, dir_fd=dir_fd)

    (directory / "a").unlink()
    monkeypatch.setattr(os, "open", refuse)
    assert scan(it, set())["unread"] == ["d"]
    assert [each["gone"] for each in said if "gone" in each] == [["a"]]


def test_what_happens_during_a_scan_is_seen(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "emit", lambda _: None)
    monkeypatch.setattr(scanning, "MOST_AT_ONCE", 1)
    (directory / "d").mkdir()
    for name in ("a", "b", "d/c"):
        (directory / name).touch()
    it = worker.OutboxWorker(str(directory), 60.0, ["*"], [])
    assert it._inotify is not None
    scan(it, {"a", "b", "d/c"})
    before = set(it._tree.watched)
    for name in ("x", "y"):
        (directory / name).touch()  # a page each
    assert it._do({"do": "scan"})["seen"]
    (directory / "new").mkdir()
    it._happened(it._inotify.read())
    shutil.rmtree(directory / "d")
    it._happened(it._inotify.read())
    assert it._rescan_at is not None
    answer = it._do({"do": "scan on", "new": [0]})
    while "seen" in answer:
        answer = it._do({"do": "scan on", "new": [0]})
    assert set(it._tree.watched.values()) == {"", "new"}
    assert len(it._tree.watched.keys() - before) == 1
    (directory / "new" / "z").touch()
    it._happened(it._inotify.read())
    assert {"x", "y", "new/z"} <= it._settling.paths()


def test_a_scan_that_nobody_goes_on_with_holds_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "emit", lambda _: None)
    (directory / "a").touch()
    it = worker.OutboxWorker(str(directory), 60.0, ["*"], [])
    it._do({"do": "scan"})
    opened = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        it._do({"do": "scan"})
    assert len(os.listdir("/proc/self/fd")) == opened
    assert scan(it, set())["files"] == 1
    assert len(os.listdir("/proc/self/fd")) < opened


def test_a_known_file_that_changes_is_seen_also_where_there_are_too_many(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "emit", lambda _: None)
    monkeypatch.setattr(worker, "MOST_FILES", 1)
    (directory / "a").write_text("one")
    it = worker.OutboxWorker(str(directory), 60.0, ["*"], [])
    scan(it)
    (directory / "a").write_text("three")
    it._entry("a", tree.IN_CLOSE_WRITE)
    assert it._settling.due(time.monotonic() + 61, 9)[0][1].size == 5


def test_a_large_directory_that_appears_is_left_to_the_next_scan(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "emit", lambda _: None)
    monkeypatch.setattr(worker, "MOST_OF_A_NEW_ONE", 10)
    it = worker.OutboxWorker(str(directory), SETTLE_S, ["*"], [])
    scan(it)
    it._scan_s = 100.0
    (directory / "d").mkdir()
    for number in range(20):
        (directory / "d" / f"{number}").touch()
    it._entry("d", tree.IN_CREATE | tree.IN_ISDIR)
    assert it._rescan_at is not None
    assert it._rescan_at > time.monotonic() + 500  # scans take a tenth of the time
    assert len(it._settling) == 10
