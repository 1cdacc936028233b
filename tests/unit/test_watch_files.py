"""The way to a file, link by link, and what is noticed of it: never a step onto a mount of ours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from mountd.daemon import watch_files
from mountd.daemon.watch_files import FileWatch, trail

NOTICED_S = 60.0
"""By inotify: the poll alone would take longer."""
NEVER_S = 10 * NOTICED_S


def directories(path: Path, *mounts: Path) -> set[str]:
    return {directory.path for directory in trail(path, {str(mount) for mount in mounts}).directories}


def test_the_directories_of_each_link_and_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a" / "..1").mkdir(parents=True)
    (tmp_path / "a" / "..1" / "file").write_text("x")
    (tmp_path / "a" / "..data").symlink_to("..1")
    (tmp_path / "a" / "file").symlink_to("..data/file")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "link").symlink_to(tmp_path / "b" / ".." / "a" / "file")
    found = directories(tmp_path / "b" / "link")
    assert found == {str(tmp_path / "b"), str(tmp_path / "a"), str(tmp_path / "a" / "..1")}


def test_what_is_missing_is_awaited_in_the_nearest_directory(tmp_path: Path) -> None:
    assert directories(tmp_path / "no" / "such" / "file") == {str(tmp_path)}
    (tmp_path / "link").symlink_to("no/such")
    assert directories(tmp_path / "link") == {str(tmp_path)}


@pytest.mark.parametrize("way", ["mnt/file", "mnt", "link", "far/file", "up"])
def test_nothing_on_a_mount_of_ours_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    mount = tmp_path / "mnt"
    mount.mkdir()
    (mount / "file").write_text("x")
    (tmp_path / "link").symlink_to("mnt/file")
    (tmp_path / "far").symlink_to(mount)
    (tmp_path / "up").symlink_to("far/../mnt/file")
    touched: list[str] = []
    original = os.lstat

    def lstat(path: str) -> os.stat_result:
        touched.append(path)
        return original(path)

    monkeypatch.setattr(os, "lstat", lstat)
    found = trail(tmp_path / way, {str(mount)})
    assert found.mount == str(mount)
    assert str(tmp_path) in touched
    assert not [path for path in touched if path.startswith(str(mount))]
    assert not [each for each in found.directories if each.path.startswith(str(mount))]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert directories(tmp_path / "a") == {str(tmp_path)}


@pytest.fixture
async def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FileWatch]:
    monkeypatch.setattr(watch_files, "POLL_S", NEVER_S)
    monkeypatch.setattr(watch_files, "LOOK_S", NOTICED_S)  # the disk may be busy
    made = FileWatch(lambda: {str(tmp_path / "mnt")})
    yield made
    made.close()


def write(path: Path) -> None:
    path.write_text("other")


def rename(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("xx")
    os.replace(other, path)


def swap(path: Path) -> None:
    directory = path.parent / "..2"
    directory.mkdir()
    (directory / "file").write_text("x")
    (path.parent / "..tmp").symlink_to(directory.name)
    os.replace(path.parent / "..tmp", path.parent / "..data")


@pytest.mark.parametrize("change", [write, rename, swap, Path.unlink])
async def test_a_change_is_noticed(watch: FileWatch, tmp_path: Path, change: Callable[[Path], None]) -> None:
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "file").write_text("x")
    (tmp_path / "..data").symlink_to("..1")
    file = tmp_path / "file"
    file.symlink_to("..data/file")
    await watch.follow([file])
    change(file)
    async with asyncio.timeout(NOTICED_S):
        await watch.changed()


async def test_a_file_that_comes_with_its_directory(
    watch: FileWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run" / "secrets" / "key"
    await watch.follow([file])
    file.parent.mkdir(parents=True)
    file.write_text("x")
    async with asyncio.timeout(NOTICED_S):
        await watch.changed()
    file.unlink()
    file.parent.rmdir()
    with monkeypatch.context() as polled:
        polled.setattr(watch_files, "POLL_S", 0.2)
        async with asyncio.timeout(NOTICED_S):
            await watch.changed()
    file.parent.mkdir()  # another directory of the same name
    file.write_text("x")
    async with asyncio.timeout(NOTICED_S):
        await watch.changed()


async def test_only_what_is_followed_counts(watch: FileWatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    await watch.follow([file])
    waiting = asyncio.create_task(watch.changed())
    (tmp_path / "other").write_text("x")
    (tmp_path / "dir").mkdir()
    _, pending = await asyncio.wait([waiting], timeout=1.0)
    assert pending
    waiting.cancel()


async def test_what_changes_between_two_calls_is_not_lost(watch: FileWatch, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("x")
    two.write_text("x")
    await watch.follow([one])
    one.write_text("y")
    await watch.follow([one, two])
    async with asyncio.timeout(NOTICED_S):
        await watch.changed()


async def test_without_inotify_it_looks_by_itself(
    watch: FileWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(watch_files, "Observer", refuse)
    monkeypatch.setattr(watch_files, "POLL_S", 0.2)
    file = tmp_path / "file"
    await watch.follow([file])
    file.write_text("x")
    async with asyncio.timeout(NOTICED_S):
        await watch.changed()


FILE = Path("/etc/mountd.yaml")


class Scripted(FileWatch):
    """Sees one state of its file after the other; the last one stays."""

    def __init__(self, *states: int) -> None:
        super().__init__(list)
        self.looks = 0
        self._states = [*states]

    async def _look(self, paths: Iterable[Path]) -> dict[Path, tuple[object, ...]]:
        self.looks += 1
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {FILE: (state,)}


async def test_a_change_counts_once_it_has_come_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_files, "QUIET_S", 0.0)
    monkeypatch.setattr(watch_files, "RESTLESS_S", NOTICED_S)
    watch = Scripted(0, 1, 2, 3)
    await watch.follow([FILE])
    assert await watch._is_changed()
    assert watch.looks == 5, "one more look has found nothing new"
    assert not await watch._is_changed()


async def test_one_that_never_comes_to_rest_counts_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_files, "QUIET_S", 0.001)
    monkeypatch.setattr(watch_files, "RESTLESS_S", 0.01)
    watch = Scripted(*range(100_000))
    await watch.follow([FILE])
    async with asyncio.timeout(NOTICED_S):
        assert await watch._is_changed()
